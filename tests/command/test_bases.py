"""A service with two base models, from a file to an answer, by the command and with the `openai` package."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from tests.command.conftest import Hotlora, in_process
from tests.stage.service import Stage, staged
from tests.stage.trained import GOOD_ROW

BASE = "tiny-base"
OTHER = "other-base"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("bases"), more_bases=[OTHER]) as stage:
        yield stage


@pytest.fixture
def hotlora(two: Stage) -> Hotlora:
    return in_process(two.address)


def test_an_adapter_of_either_base_is_trained_proven_and_asked(
    two: Stage, hotlora: Hotlora, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(GOOD_ROW * 3)
    for adapter, options in (("one", ()), ("two", ("--base-model", OTHER))):
        trained = hotlora("train", str(rows), "--adapter", adapter, *options, "--json")
        assert trained.code == 0, trained.err
        assert trained.documents()[-1]["adapterVersion"]["state"] == "STATE_ACTIVE"
        answer = hotlora("chat", adapter, "--prompt", "hello", "--json")
        assert answer.code == 0, answer.err
        assert answer.documents()[-1]["model"] == f"{adapter}@1"
    assert set(two.engine.adapters) == {"one@1"}
    assert set(two.others[OTHER].adapters) == {"two@1"}
    (listed,) = hotlora("adapters", "list", "--json").documents()
    bases = {adapter["name"]: adapter["baseModel"] for adapter in listed["adapters"]}
    assert bases == {"adapters/one": BASE, "adapters/two": OTHER}
    (listed,) = hotlora("datasets", "list", "--json").documents()
    assert sorted(dataset["baseModel"] for dataset in listed["datasets"]) == [OTHER, BASE]


def test_what_is_trained_further_is_read_by_its_own_base_and_compared_with_it(
    hotlora: Hotlora, tmp_path: Path
) -> None:
    rows = tmp_path / "again.jsonl"
    rows.write_bytes(GOOD_ROW * 5)
    for options in (("--base-model", OTHER), ()):
        trained = hotlora("train", str(rows), "--adapter", "again", *options, "--json")
        assert trained.code == 0, trained.err
    jobs = hotlora("jobs", "--json").documents()[0]["tuningJobs"]
    newest = next(job for job in jobs if job["adapter"] == "adapters/again")
    assert (newest["baseModel"], newest.get("warnings", [])) == (OTHER, [])
    compared = hotlora("compare", "again", "--prompt", "hello", "--json")
    assert compared.code == 0, compared.err
    pieces = compared.documents()
    ends = [piece["model"] for piece in pieces if piece["finishReason"] != "FINISH_REASON_UNSPECIFIED"]
    assert sorted(ends) == ["again@2", OTHER]


def test_a_plan_and_an_upload_are_for_the_base_that_is_named(hotlora: Hotlora, tmp_path: Path) -> None:
    rows = tmp_path / "others.jsonl"
    rows.write_bytes(GOOD_ROW * 4)
    plan = hotlora("plan", str(rows), "--base-model", OTHER, "--json")
    assert plan.code == 0, plan.err
    assert plan.documents()[-1]["baseModel"] == OTHER
    uploaded = hotlora("datasets", "upload", str(rows), "--base-model", OTHER, "--id", "others", "--json")
    assert uploaded.documents()[-1]["baseModel"] == OTHER
    refused = hotlora("plan", str(rows), "--base-model", "wishful")
    assert refused.code != 0
    assert OTHER in refused.err


def test_the_openai_package_sees_both_bases_and_trains_on_either(two: Stage) -> None:
    with OpenAI(base_url=two.gateway_url, api_key="none", max_retries=0) as ai:
        listed = {model.id: getattr(model, "parent", None) for model in ai.models.list()}
        assert {name for name, parent in listed.items() if parent is None} == {BASE, OTHER}
        for base, engine in ((BASE, two.engine), (OTHER, two.others[OTHER])):
            before = engine.calls["/v1/completions"]
            answer = ai.chat.completions.create(model=base, messages=[{"role": "user", "content": "hello"}])
            assert answer.model == base
            assert engine.calls["/v1/completions"] == before + 1
        file = ai.files.create(file=("rows.jsonl", GOOD_ROW * 3), purpose="fine-tune")
        job = ai.fine_tuning.jobs.create(model=OTHER, training_file=file.id, suffix="by-openai")
        assert job.model == OTHER


def test_health_and_figures_tell_the_engines_of_each_base_apart(two: Stage) -> None:
    root = two.gateway_url.removesuffix("/v1")
    health = httpx.get(f"{root}/healthz").json()
    assert health["ready"] is True
    assert {name: each["engine"] for name, each in health["base_models"].items()} == {
        BASE: "READY",
        OTHER: "READY",
    }
    figures = httpx.get(f"{root}/metrics").text
    for base, engine in ((BASE, two.engine), (OTHER, two.others[OTHER])):
        assert f'hotlora_engine_ready{{base_model="{base}",engine="{engine.url}"}} 1.0' in figures
