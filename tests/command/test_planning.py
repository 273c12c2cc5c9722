"""`hotlora plan` and the clients' method: what is asked, and what a person and a program get."""

import json
from pathlib import Path

import pytest

from hotlora.aio import AsyncClient
from hotlora.command.options import TechniqueName
from hotlora.v1 import planning_service_pb2 as pb
from hotlora.v1.tuning_service_pb2 import TECHNIQUE_FULL, TECHNIQUE_LORA, Technique
from tests.command.conftest import Hotlora
from tests.command.service import State

GIB = 1 << 30


@pytest.fixture
def planned(state: State) -> State:
    """A plan of two techniques."""
    state.plan = pb.PlanResponse(
        base_model="tiny-base",
        parameters=1_234_567,
        data=pb.DataDescription(rows=200, tokens=25_600, longest_row_tokens=131),
        device=pb.Device(kind=pb.DeviceDescription.KIND_CPU, memory_bytes=24 * GIB, available_bytes=8 * GIB),
        techniques=[
            pb.TechniquePlan(
                technique=TECHNIQUE_LORA,
                memory=[pb.MemoryLine(part=pb.MEMORY_PART_WEIGHTS, bytes=2 * GIB, explanation="frozen")],
                total_bytes=2 * GIB,
                fits=True,
                trained_parameters=9_876,
                reasons=[pb.SettingReason(field="rank", value=8, reason="few rows")],
                steps=75,
                tokens=69_000,
                seconds=754,
                speed_source=pb.SPEED_SOURCE_PROBE,
                textbook=[
                    pb.TextbookLine(
                        part=pb.MEMORY_PART_WEIGHTS,
                        bytes=7 * GIB,
                        printed_bytes=5 * GIB,
                        real_bytes=3 * GIB,
                        reality="half a byte",
                    )
                ],
            ),
            pb.TechniquePlan(
                technique=TECHNIQUE_FULL,
                memory=[pb.MemoryLine(part=pb.MEMORY_PART_WEIGHTS, bytes=16 * GIB, explanation="all")],
                total_bytes=16 * GIB,
            ),
        ],
        recommendation=pb.Recommendation(technique=TECHNIQUE_LORA, fits=True, reasons=["it fits\x1b[31m"]),
    )
    return state


def test_a_plan_is_a_table_with_reasons(planned: State, hotlora: Hotlora, rows: Path) -> None:
    shown = hotlora("plan", str(rows), "--rank", "4")

    assert shown.code == 0
    for words in ("1,234,567 parameters", "2.0 GiB", "16.0 GiB", "12 min 34 s", "few rows", "measured here"):
        assert words in shown.out
    assert "Recommended: LoRA\n- it fits[31m" in shown.out, "control characters of others are left out"
    (request,) = planned.planned
    assert request.dataset in planned.datasets
    assert request.hyperparameters.rank == 4 and not request.hyperparameters.HasField("epochs")
    assert not request.HasField("device") and not request.probe


def test_everything_may_be_described_in_numbers(planned: State, hotlora: Hotlora, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257}')
    asked = hotlora(
        *("plan", "--rows", "5000", "--tokens", "600000", "--config", str(config)),
        *("--memory", "24GB", "--teraflops", "60", "--json"),
    )

    assert json.loads(asked.out)["recommendation"]["technique"] == "TECHNIQUE_LORA"
    (request,) = planned.planned
    assert (request.data.rows, request.data.tokens) == (5_000, 600_000)
    assert (request.device.memory_bytes, request.device.operations_per_second) == (24 * 10**9, 6e13)
    assert request.device.kind == pb.DeviceDescription.KIND_CUDA
    assert (request.model.layers, request.model.intermediate_size) == (12, 3072)


def test_the_primers_example_is_laid_beside_reality(planned: State, hotlora: Hotlora) -> None:
    shown = hotlora("plan", "--example", "llama-7b")

    (request,) = planned.planned
    assert request.example == pb.EXAMPLE_LLAMA_7B
    for words in ("5.0 GiB", "7.0 GiB", "3.0 GiB", "half a byte"):
        assert words in shown.out


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


@pytest.mark.parametrize("technique", list(TechniqueName))
def test_any_technique_can_be_probed(planned: State, hotlora: Hotlora, technique: TechniqueName) -> None:
    assert hotlora("plan", "--rows", "10", "--probe", "--technique", technique).code == 0
    (request,) = planned.planned
    assert Technique.Name(request.probe_technique) == f"TECHNIQUE_{technique.name}"


async def test_both_clients_plan(planned: State, address: str) -> None:
    async with AsyncClient(address) as client:
        response = await client.plan(pb.PlanRequest(dataset="datasets/d", probe=True))
    assert response == planned.plan
    (request,) = planned.planned
    assert request.probe
