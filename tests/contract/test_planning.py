"""PlanningService, over the wire."""

import asyncio
import sys
from pathlib import Path

import grpc
import pytest
from structlog.testing import capture_logs

from hotlora.v1 import dataset_service_pb2 as datasets_pb
from hotlora.v1 import planning_service_pb2 as pb
from hotlora.v1 import resources_pb2 as resources_pb
from hotlora.v1 import tuning_service_pb2 as tuning_pb
from tests.contract.stage import BASE, CONTEXT_LENGTH, GOOD_LINE, Stage, refused, running, until
from tests.doubles.probe import RUNTIME_BYTES
from trainer.config import Technique

GB = 10**9
FAILING = ("env", "HOTLORA_PROBE_DOUBLE=fail", sys.executable, "-m", "tests.doubles.probe")
HANGING = ("env", "HOTLORA_PROBE_DOUBLE=hang", sys.executable, "-m", "tests.doubles.probe")


async def plan(stage: Stage, **fields: object) -> pb.PlanResponse:
    return await stage.planning.Plan(pb.PlanRequest(**fields))


def of(response: pb.PlanResponse, technique: tuning_pb.Technique) -> pb.TechniquePlan:
    (found,) = (one for one in response.techniques if one.technique == technique)
    return found


async def test_a_plan_says_of_every_technique_what_it_needs_and_which_one_to_take(stage: Stage) -> None:
    await stage.upload(GOOD_LINE * 10)
    response = await plan(stage, dataset="datasets/rows")
    assert response.base_model == BASE
    assert (response.data.rows, response.device.is_own) == (10, True)
    assert 0 < response.data.trained_share < 1
    assert {one.technique for one in response.techniques} == {
        tuning_pb.TECHNIQUE_LORA,
        tuning_pb.TECHNIQUE_QLORA,
        tuning_pb.TECHNIQUE_PROMPT_TUNING,
        tuning_pb.TECHNIQUE_FULL,
    }
    for one in response.techniques:
        assert one.total_bytes == sum(line.bytes for line in one.memory)
        assert one.fits and all(line.explanation for line in one.memory)
        assert one.reasons and all(reason.reason for reason in one.reasons)
        assert one.steps and one.tokens and not one.HasField("seconds")
    assert response.recommendation.reasons


async def test_a_technique_that_could_not_be_served_is_marked_with_the_reason_and_never_recommended(
    tmp_path: Path,
) -> None:
    why = "vLLM serves no such adapters"
    reasons = {Technique.LORA: why, Technique.QLORA: why}
    async with running(tmp_path, unservable=lambda: reasons) as stage:
        response = await plan(stage)
        told = {one.technique: one.unservable for one in response.techniques}
        assert told == {
            tuning_pb.TECHNIQUE_LORA: why,
            tuning_pb.TECHNIQUE_QLORA: why,
            tuning_pb.TECHNIQUE_PROMPT_TUNING: "",
            tuning_pb.TECHNIQUE_FULL: "",
        }
        assert told[response.recommendation.technique] == ""
        assert any(why in reason for reason in response.recommendation.reasons)
        described = await plan(stage, example=pb.EXAMPLE_LLAMA_7B)
        assert not any(one.unservable for one in described.techniques), "it is no base of this engine"
        reasons |= {Technique.PROMPT_TUNING: "no embeddings", Technique.FULL: "no engine"}
        nothing = (await plan(stage)).recommendation
    assert (nothing.technique, nothing.fits) == (tuning_pb.TECHNIQUE_UNSPECIFIED, False)
    assert [reason.partition(":")[2] for reason in nothing.reasons] == [
        f" {why}", f" {why}", " no embeddings", " no engine",
    ]  # fmt: skip


async def test_a_job_without_settings_gets_those_of_the_plan(stage: Stage) -> None:
    await stage.upload(GOOD_LINE * 10)
    response = await plan(stage, dataset="datasets/rows")
    job = await stage.job()
    assert job.technique == tuning_pb.TECHNIQUE_LORA, "whichever is recommended"
    assert job.hyperparameters == of(response, job.technique).hyperparameters
    for number, one in enumerate(response.techniques):
        job = await stage.job(technique=one.technique, adapter_id=f"a{number}")
        assert job.hyperparameters == one.hyperparameters
        for reason in one.reasons:
            assert getattr(job.hyperparameters, reason.field) == reason.value


async def test_described_preferences_are_planned_as_the_same_in_a_dataset_would_be(stage: Stage) -> None:
    await stage.upload(b'{"prompt": "hello", "chosen": "world", "rejected": "moon"}\n' * 20)
    measured = await plan(stage, dataset="datasets/rows")
    assert measured.data.objective == tuning_pb.OBJECTIVE_PREFERENCE
    described = await plan(stage, data=measured.data)
    assert list(described.techniques) == list(measured.techniques)
    supervised = pb.DataDescription()
    supervised.CopyFrom(measured.data)
    supervised.objective = tuning_pb.OBJECTIVE_SUPERVISED
    lora = of(await plan(stage, data=supervised), tuning_pb.TECHNIQUE_LORA)
    assert lora.hyperparameters.learning_rate > of(measured, lora.technique).hyperparameters.learning_rate


async def test_a_long_text_is_planned_in_the_pieces_that_a_run_makes_of_it(stage: Stage) -> None:
    await stage.upload(b'{"text": "' + b"word " * 2_000 + b'"}\n', "book")
    await stage.upload(b'{"text": "' + b"word " * 90 + b'"}\n', "page")
    measured = await plan(stage, dataset="datasets/book")
    book = of(measured, tuning_pb.TECHNIQUE_LORA)
    page = of(await plan(stage, dataset="datasets/page"), tuning_pb.TECHNIQUE_LORA)
    assert book.total_bytes < 2 * page.total_bytes
    assert book.steps > page.steps
    assert list((await plan(stage, data=measured.data)).techniques) == list(measured.techniques)


async def test_answers_that_a_run_scores_take_time_in_its_plan(stage: Stage) -> None:
    header = datasets_pb.UploadHeader(dataset_id="rows", task=resources_pb.TASK_CLASSIFICATION)
    parts = (
        datasets_pb.UploadDatasetRequest(header=header),
        datasets_pb.UploadDatasetRequest(chunk=GOOD_LINE * 100),
    )
    await stage.datasets.UploadDataset(iter(parts))
    await plan(stage, probe=True)
    settings = tuning_pb.Hyperparameters(early_stopping_metric=tuning_pb.METRIC_TASK_SCORE)
    scored = await plan(stage, dataset="datasets/rows", hyperparameters=settings)
    assert scored.data.has_task
    plain = await plan(stage, dataset="datasets/rows")
    unscored = pb.DataDescription()
    unscored.CopyFrom(scored.data)
    unscored.has_task = False
    lora = tuning_pb.TECHNIQUE_LORA
    without = of(await plan(stage, data=unscored), lora).seconds
    assert of(scored, lora).seconds > of(plain, lora).seconds > without
    assert list((await plan(stage, data=plain.data)).techniques) == list(plain.techniques)
    unscored.texts = unscored.has_task = True
    assert set((await refused(plan(stage, data=unscored))).violations) == {"data.has_task"}


async def test_settings_that_are_chosen_stay_and_the_rest_is_the_plans(stage: Stage) -> None:
    chosen = tuning_pb.Hyperparameters(rank=4, batch_size=2)
    lora = of(await plan(stage, hyperparameters=chosen), tuning_pb.TECHNIQUE_LORA)
    assert (lora.hyperparameters.rank, lora.hyperparameters.alpha) == (4, 8)
    assert "rank" not in {reason.field for reason in lora.reasons}
    assert lora.hyperparameters.max_sequence_length == CONTEXT_LENGTH


async def test_the_primers_7b_example_stands_beside_what_it_really_needs(stage: Stage) -> None:
    response = await plan(stage, example=pb.EXAMPLE_LLAMA_7B)
    printed = {line.part: line.printed_bytes for line in of(response, tuning_pb.TECHNIQUE_FULL).textbook}
    assert printed == {
        pb.MEMORY_PART_WEIGHTS: 28 * GB,
        pb.MEMORY_PART_GRADIENTS: 28 * GB,
        pb.MEMORY_PART_OPTIMIZER: 56 * GB,
        pb.MEMORY_PART_ACTIVATIONS: 20 * GB,
    }
    weights = of(response, tuning_pb.TECHNIQUE_QLORA).textbook[0]
    assert (weights.printed_bytes, weights.part) == (7 * GB, pb.MEMORY_PART_WEIGHTS)
    assert 3.5 * GB < weights.real_bytes < 4 * GB and "half a byte" in weights.reality
    assert response.base_model == ""


@pytest.mark.parametrize(
    ("memory_bytes", "technique"),
    [(40 * GB, tuning_pb.TECHNIQUE_LORA), (24 * GB, tuning_pb.TECHNIQUE_QLORA)],
)
async def test_a_described_device_is_advised_by_the_tree(
    stage: Stage, memory_bytes: int, technique: tuning_pb.Technique
) -> None:
    device = pb.DeviceDescription(memory_bytes=memory_bytes, operations_per_second=1e14)
    response = await plan(stage, example=pb.EXAMPLE_LLAMA_7B, device=device)
    assert (response.recommendation.technique, response.recommendation.fits) == (technique, True)
    assert not response.device.is_own
    chosen = of(response, technique)
    assert chosen.seconds > 0 and chosen.speed_source == pb.SPEED_SOURCE_ARITHMETIC


async def test_a_described_model_is_planned_as_its_numbers_say(stage: Stage) -> None:
    model = pb.ModelDescription(
        layers=12,
        hidden_size=768,
        attention_heads=12,
        intermediate_size=3072,
        vocabulary_size=50_257,
        tied_embeddings=True,
    )
    response = await plan(stage, model=model, data=pb.DataDescription(rows=50_000))
    assert response.parameters > 100_000_000
    assert response.data.tokens == 50_000 * 128
    assert "shines" in response.recommendation.reasons[-1]


async def test_contradictions_name_each_other(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    refusal = await refused(
        plan(
            stage,
            base_model=BASE,
            example=pb.EXAMPLE_GPT2,
            dataset="datasets/rows",
            data=pb.DataDescription(rows=10, tokens=19),
            device=pb.DeviceDescription(memory_bytes=GB),
            probe=True,
        )
    )
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"example", "data", "data.tokens", "probe"}
    assert "base_model" in refusal.violations["example"]
    assert "dataset" in refusal.violations["data"]


async def test_settings_that_no_job_could_have_are_refused_whatever_else_is_wrong(stage: Stage) -> None:
    settings = tuning_pb.Hyperparameters(
        rank=33,
        alpha=-1,
        epochs=2,
        max_steps=5,
        dpo_beta=0.2,
        validation_fraction=0,
        early_stopping_patience=1,
        target_modules=["wishful"],
        max_sequence_length=513,
    )
    data = pb.DataDescription(rows=10)
    refusal = await refused(plan(stage, base_model="other", hyperparameters=settings, data=data))
    names = (
        *("rank", "alpha", "epochs", "dpo_beta", "early_stopping_patience", "target_modules"),
        "max_sequence_length",
    )
    assert set(refusal.violations) == {"base_model", *(f"hyperparameters.{name}" for name in names)}
    refusal = await refused(plan(stage, dataset="datasets/none", hyperparameters=settings))
    assert "there is no dataset 'none'" in refusal.violations["dataset"]
    rank = tuning_pb.Hyperparameters(rank=33)
    assert await plan(stage, example=pb.EXAMPLE_LLAMA_7B, hyperparameters=rank), "no engine of ours serves it"


async def test_of_a_described_model_or_dataset_that_breaks_a_rule_nothing_else_is_made_up(
    stage: Stage,
) -> None:
    model = pb.ModelDescription(
        layers=1, hidden_size=1, attention_heads=9, intermediate_size=8, vocabulary_size=9
    )
    refusal = await refused(plan(stage, model=model, data=pb.DataDescription(rows=-1, tokens=7)))
    assert set(refusal.violations) == {"model.hidden_size", "data.rows"}


async def test_an_unknown_dataset_or_model_is_said_to_be_unknown(stage: Stage) -> None:
    assert (await refused(plan(stage, dataset="datasets/none"))).code is grpc.StatusCode.NOT_FOUND
    refusal = await refused(plan(stage, base_model="other"))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT and set(refusal.violations) == {"base_model"}


async def test_a_probe_measures_once_and_its_figures_serve_every_later_plan(tmp_path: Path) -> None:
    async with running(tmp_path) as stage:
        before = of(await plan(stage), tuning_pb.TECHNIQUE_LORA)
        probed = of(await plan(stage, probe=True), tuning_pb.TECHNIQUE_LORA)
        assert not before.HasField("probe_time") and probed.HasField("probe_time")
        assert probed.speed_source == pb.SPEED_SOURCE_PROBE and probed.seconds > 0
        assert probed.total_bytes > RUNTIME_BYTES
    async with running(tmp_path, probe_command=FAILING) as stage:
        response = await plan(stage, probe=True)
        assert of(response, tuning_pb.TECHNIQUE_LORA) == probed
        assert of(response, tuning_pb.TECHNIQUE_FULL).speed_source == pb.SPEED_SOURCE_LIKENESS


async def test_damaged_figures_of_a_probe_are_as_good_as_none(stage: Stage) -> None:
    await plan(stage, probe=True)
    (file,) = (stage.home / "calibrations").iterdir()
    file.write_text("{}")
    assert not of(await plan(stage), tuning_pb.TECHNIQUE_LORA).HasField("seconds")


async def test_no_probe_begins_while_a_job_trains(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    await stage.job()
    assert await stage.registry.claim_next_job("owner") is not None
    refusal = await refused(plan(stage, probe=True))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PROBE_BESIDE_TRAINING")
    assert "tuningJobs/job-1" in refusal.message


async def test_a_probe_gives_way_to_a_job_that_begins_and_excludes_another_one(tmp_path: Path) -> None:
    async with running(tmp_path, probe_command=HANGING) as stage:
        await stage.upload(GOOD_LINE)
        probing = asyncio.ensure_future(refused(plan(stage, probe=True)))
        await until((tmp_path / "base" / "probing").exists)
        second = await refused(plan(stage, probe=True))
        assert (second.code, second.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "PROBE_RUNNING")
        await stage.job()
        assert await stage.registry.claim_next_job("owner") is not None
        refusal = await probing
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "PROBE_OVERTAKEN")
        assert refusal.retry_seconds


async def test_of_a_call_whose_caller_gives_up_the_log_says_where_it_waited(tmp_path: Path) -> None:
    with capture_logs() as logged:
        async with running(tmp_path, probe_command=HANGING) as stage:
            call = stage.planning.Plan(pb.PlanRequest(probe=True))
            await until((tmp_path / "base" / "probing").exists)
            call.cancel()
    (entry,) = (entry for entry in logged if entry["event"] == "a caller gave up")
    assert entry["method"] == "/hotlora.v1.PlanningService/Plan"
    assert entry["seconds"] > 0
    assert any(place.startswith("probes.") for place in entry["waiting_at"])


async def test_a_probe_that_fails_is_our_fault_and_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, probe_command=FAILING) as stage:
        refusal = await refused(plan(stage, probe=True))
        assert refusal.code is grpc.StatusCode.INTERNAL
        assert not of(await plan(stage), tuning_pb.TECHNIQUE_LORA).HasField("seconds")
