"""`hotlora plan` and the clients' method: what a person and a program get of what the service plans."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from hotlora.aio import AsyncClient
from hotlora.client import Client
from hotlora.v1 import planning_service_pb2 as pb
from hotlora.v1 import planning_service_pb2_grpc as planning_grpc
from hotlora.v1.tuning_service_pb2 import TECHNIQUE_FULL, TECHNIQUE_LORA
from tests.command.conftest import Hotlora, in_process


def test_a_plan_is_a_table_with_reasons(hotlora: Hotlora, rows: Path) -> None:
    shown = hotlora("plan", str(rows), "--rank", "4")

    assert shown.code == 0
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert "model tiny-base, 9,424 parameters" in lines
    assert "data 3 rows, 84 tokens, longest 28" in lines
    assert "LoRA QLoRA prompt tuning full" in lines
    assert "trained 2,176 2,176 320 9,424" in lines, "at rank 4"
    assert any(line.startswith("epochs 3 few passes: 3 rows are under 1,000") for line in lines)
    assert not any(line.startswith("rank") for line in lines), "it was given, so there is no reason to give"
    assert any(line.startswith("Recommended: ") for line in lines)


def test_everything_may_be_described_in_numbers(hotlora: Hotlora, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257}')
    asked = hotlora(
        *("plan", "--rows", "5000", "--tokens", "600000", "--config", str(config)),
        *("--memory", "24GB", "--teraflops", "60", "--json"),
    )

    plan = json.loads(asked.out)
    assert (plan["data"]["rows"], plan["data"]["tokens"]) == ("5000", "600000")
    assert (plan["device"]["kind"], plan["device"]["memoryBytes"]) == ("KIND_CUDA", str(24 * 10**9))
    assert {one["speedSource"] for one in plan["techniques"]} == {"SPEED_SOURCE_ARITHMETIC"}
    assert plan["parameters"] == "190460160", "the inner size is four times the hidden one"


def test_the_primers_example_is_laid_beside_reality(hotlora: Hotlora) -> None:
    shown = hotlora("plan", "--example", "llama-7b")

    assert shown.code == 0
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert "TECHNIQUE TERM PRIMER BY ITS RULE REALLY WHY" in lines
    assert any(
        line.startswith("QLoRA weights 6.5 GiB 6.5 GiB 3.6 GiB 4 bits are half a byte") for line in lines
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--memory", "much"), "is no size"),
        (("--tokens", "5"), "belong to --rows"),
        (("--teraflops", "5"), "belongs to --memory"),
        (("--config", "CONFIG"), "has no number called num_hidden_layers or n_layer"),
    ],
)
def test_what_cannot_be_meant_is_a_bad_argument(
    hotlora: Hotlora, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    config = tmp_path / "config.json"
    config.write_text("{}")
    run = hotlora("plan", *(str(config) if one == "CONFIG" else one for one in arguments))
    assert run.code == 2
    assert words in run.err


def test_a_technique_is_probed_on_this_machine(hotlora: Hotlora) -> None:
    asked = hotlora("plan", "--rows", "10", "--probe", "--technique", "full", "--json")

    assert asked.code == 0, asked.err
    sources = {one["technique"]: one.get("speedSource") for one in json.loads(asked.out)["techniques"]}
    assert sources.pop("TECHNIQUE_FULL") == "SPEED_SOURCE_PROBE"
    assert set(sources.values()) == {"SPEED_SOURCE_LIKENESS"}


class Planned(planning_grpc.PlanningServiceServicer):
    """A service whose engine serves too little."""

    def __init__(self, plan: pb.PlanResponse) -> None:
        self._plan = plan

    def Plan(self, request: pb.PlanRequest, context: grpc.ServicerContext) -> pb.PlanResponse:
        return self._plan


@pytest.fixture
def planned() -> Iterator[tuple[Hotlora, pb.PlanResponse]]:
    """The command, and the plan that it is given."""
    plan = pb.PlanResponse(
        techniques=[
            pb.TechniquePlan(technique=TECHNIQUE_LORA, unservable="vLLM serves none of these"),
            pb.TechniquePlan(technique=TECHNIQUE_FULL, fits=True),
        ],
        recommendation=pb.Recommendation(technique=TECHNIQUE_FULL, fits=True),
    )
    server = grpc.server(ThreadPoolExecutor())
    planning_grpc.add_PlanningServiceServicer_to_server(Planned(plan), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield in_process(f"127.0.0.1:{port}"), plan
    server.stop(None).wait()


def test_a_technique_that_could_not_be_served_says_so_and_why(
    planned: tuple[Hotlora, pb.PlanResponse],
) -> None:
    hotlora, plan = planned
    lines = [" ".join(line.split()) for line in hotlora("plan", "--rows", "9").out.splitlines()]
    assert "fits no yes" in lines and "served no yes" in lines
    assert lines[-2:] == ["LoRA could not be served: vLLM serves none of these", "Recommended: full"]

    plan.recommendation.CopyFrom(pb.Recommendation(reasons=["nothing is served"]))
    lines = hotlora("plan", "--rows", "9").out.splitlines()
    assert lines[-2:] == ["Recommended: none", "- nothing is served"]


async def test_both_clients_plan(address: str) -> None:
    request = pb.PlanRequest(data=pb.DataDescription(rows=10, tokens=1_000))
    with Client(address) as client:
        plan = client.plan(request)
    async with AsyncClient(address) as asynchronous:
        again = await asynchronous.plan(request)

    assert [one.technique for one in plan.techniques] == [one.technique for one in again.techniques]
    assert plan.techniques[0].technique == TECHNIQUE_LORA
