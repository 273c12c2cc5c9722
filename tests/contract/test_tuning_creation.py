"""CreateTuningJob, over the wire: what is asked for becomes a job."""

from pathlib import Path

import grpc
import pytest

from hotlora.v1 import adapter_service_pb2 as adapters_pb
from hotlora.v1 import dataset_service_pb2 as datasets_pb
from hotlora.v1 import planning_service_pb2 as planning_pb
from hotlora.v1 import resources_pb2 as resources_pb
from hotlora.v1 import tuning_service_pb2 as pb
from tests.contract.stage import (
    BASE,
    CONTEXT_LENGTH,
    GOOD_LINE,
    Stage,
    create_refused,
    refused,
    running,
)
from tests.contract.training import run_to_success


async def test_a_created_job_is_queued_with_every_default_filled_in(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    job = await stage.job()
    assert job.name == "tuningJobs/job-1"
    assert job.state == pb.TuningJob.STATE_QUEUED
    assert (job.base_model, job.dataset, job.adapter) == (BASE, "datasets/rows", "adapters/support")
    assert job.technique == pb.TECHNIQUE_LORA
    assert job.hyperparameters == pb.Hyperparameters(
        rank=8,
        alpha=16,
        dropout=0.1,
        learning_rate=2e-4,
        epochs=3,
        batch_size=8,
        max_sequence_length=CONTEXT_LENGTH,
        warmup_ratio=0.05,
        schedule=pb.SCHEDULE_COSINE,
        weight_decay=0.05,
        max_grad_norm=1,
        seed=42,
        validation_fraction=0.1,
        log_every_steps=1,
        use_rslora=False,
        early_stopping_patience=0,
        early_stopping_metric=pb.METRIC_EVAL_LOSS,
    )
    assert job.create_time.ToNanoseconds() == 1_700_000_000_250_000_000
    assert not job.HasField("failure") and not job.HasField("start_time")


async def test_given_settings_are_kept_even_where_they_are_zero(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    given = pb.Hyperparameters(
        rank=4,
        dropout=0,
        validation_fraction=0,
        seed=0,
        max_grad_norm=0,
        max_steps=7,
        schedule=pb.SCHEDULE_LINEAR,
        target_modules=["q_proj"],
        checkpoint_every_steps=2,
    )
    settings = (await stage.job(hyperparameters=given, technique=pb.TECHNIQUE_QLORA)).hyperparameters
    for field, value in given.ListFields():
        assert settings.HasField(field.name) if not field.is_repeated else value
        assert getattr(settings, field.name) == value
    assert settings.alpha == 8, "alpha follows the rank that was given"


@pytest.mark.parametrize(
    ("technique", "rate"),
    [
        (pb.TECHNIQUE_LORA, 2e-4),
        (pb.TECHNIQUE_QLORA, 2e-4),
        (pb.TECHNIQUE_PROMPT_TUNING, 3e-3),
        (pb.TECHNIQUE_FULL, 2e-5),
    ],
)
async def test_the_default_rate_is_the_techniques_and_its_job_shows_only_what_it_reads(
    stage: Stage, technique: pb.Technique, rate: float
) -> None:
    await stage.upload(GOOD_LINE)
    job = await stage.job(technique=technique)
    assert job.technique == technique
    assert job.hyperparameters.learning_rate == rate
    low_rank = technique in (pb.TECHNIQUE_LORA, pb.TECHNIQUE_QLORA)
    for name in ("rank", "alpha", "dropout", "use_rslora"):
        assert job.hyperparameters.HasField(name) == low_rank
    assert job.hyperparameters.HasField("virtual_tokens") == (technique == pb.TECHNIQUE_PROMPT_TUNING)


async def test_the_settings_of_a_job_are_those_of_a_request_for_the_same_job(stage: Stage) -> None:
    await stage.upload(GOOD_LINE * 10)
    for given in (pb.Hyperparameters(), pb.Hyperparameters(max_steps=7, rank=4, target_modules=["q_proj"])):
        first = (await stage.job(hyperparameters=given)).hyperparameters
        assert first.HasField("epochs") != first.HasField("max_steps"), "only what ends the run is set"
        assert (await stage.job(hyperparameters=first)).hyperparameters == first


@pytest.mark.parametrize(
    ("rows", "settings", "field", "words"),
    [
        (10, {"eval_every_steps": 7}, "eval_every_steps", "7 is more than the 6 steps of the run"),
        (
            10,
            {"checkpoint_every_steps": 9, "max_steps": 8},
            "checkpoint_every_steps",
            "the 8 steps of the run",
        ),
        (10, {"log_every_steps": 2, "max_steps": 1}, "log_every_steps", "the 1 step of the run"),
        (10, {"batch_size": 10}, "batch_size", "10 is more than the 9 rows that are trained on"),
        (1, {"validation_fraction": 0.5}, "validation_fraction", "0.5 of 1 row is none"),
        (
            1,
            {"initial_prompt": "Sort this.", "virtual_tokens": 3},
            "initial_prompt",
            "hyperparameters.virtual_tokens are 3: the rest of it is cut off",
        ),
    ],
)
async def test_a_setting_that_will_have_less_effect_than_it_says_is_a_warning_on_the_job(
    stage: Stage, rows: int, settings: dict[str, object], field: str, words: str
) -> None:
    await stage.upload(GOOD_LINE * rows)
    technique = pb.TECHNIQUE_PROMPT_TUNING if "initial_prompt" in settings else pb.TECHNIQUE_LORA
    job = await stage.job(technique=technique, hyperparameters=pb.Hyperparameters(**settings))
    (warning,) = job.warnings
    assert warning.field == f"hyperparameters.{field}"
    assert words in warning.description
    assert await stage.tuning.GetTuningJob(pb.GetTuningJobRequest(name=job.name)) == job


async def test_settings_that_do_what_they_say_and_those_that_nobody_chose_bring_no_warning(
    stage: Stage,
) -> None:
    await stage.upload(GOOD_LINE)
    assert not (await stage.job()).warnings
    await stage.upload(GOOD_LINE * 10, "more")
    settings = pb.Hyperparameters(
        eval_every_steps=6, checkpoint_every_steps=6, log_every_steps=6, batch_size=9, epochs=6
    )
    assert not (await stage.job(dataset="datasets/more", hyperparameters=settings)).warnings
    prompt = pb.Hyperparameters(initial_prompt="Sort", virtual_tokens=20)
    assert not (await stage.job(technique=pb.TECHNIQUE_PROMPT_TUNING, hyperparameters=prompt)).warnings


async def test_the_objective_follows_from_the_dataset_and_its_rate_with_it(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    assert (await stage.job()).objective == pb.OBJECTIVE_SUPERVISED
    await stage.upload(b'{"prompt": "hello", "chosen": "world", "rejected": "moon"}\n', "pairs")
    job = await stage.job(dataset="datasets/pairs")
    assert job.objective == pb.OBJECTIVE_PREFERENCE
    assert job.hyperparameters.learning_rate == pytest.approx(2e-5)
    assert job.hyperparameters.dpo_beta == 0.1
    claimed = await stage.registry.claim_next_job("owner")
    assert claimed is not None and claimed.objective == "supervised"


async def test_the_same_request_again_returns_the_same_job_whatever_happened_meanwhile(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    first = await stage.job(request_id="once")
    await stage.tuning.CancelTuningJob(pb.CancelTuningJobRequest(name=first.name))
    await stage.store.delete("rows")
    again = await stage.job(request_id="once")
    assert again.name == first.name
    assert again.state == pb.TuningJob.STATE_CANCELLED


async def test_a_request_id_with_another_body_is_refused(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    await stage.job(request_id="once")
    refusal = await create_refused(stage, request_id="once", adapter_id="other")
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_USED")


async def test_without_a_request_id_every_call_makes_a_job(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    assert (await stage.job()).name != (await stage.job()).name


async def test_a_row_above_the_usual_length_is_planned_for_and_its_job_accepted(tmp_path: Path) -> None:
    async with running(tmp_path, context_length=4_096) as stage:
        dataset = await stage.upload(b'{"prompt": "hello", "completion": "' + b"x" * 3_000 + b'"}\n')
        job = await stage.job()
        assert job.hyperparameters.max_sequence_length == dataset.longest_row_tokens > 2_048


async def test_rows_that_an_upload_takes_are_never_too_long_for_the_default_job(tmp_path: Path) -> None:
    row = b'{"prompt": "", "completion": "' + b"x" * 200 + b'"}\n'
    async with running(tmp_path / "probe") as stage:
        length = (await stage.upload(row.replace(b'""', b'"hello"', 1))).longest_row_tokens
    async with running(tmp_path, context_length=length) as stage:
        longer = await refused(stage.upload(row.replace(b'""', b'"hello!"', 1), "longer"))
        assert f"more than the context of {length}" in longer.violations["line 1"]
        await stage.upload(row.replace(b'""', b'"hello"', 1))
        job = await stage.job()
        assert job.hyperparameters.max_sequence_length == length
        plan = await stage.planning.Plan(planning_pb.PlanRequest(dataset="datasets/rows"))
        assert plan.techniques[0].hyperparameters.max_sequence_length == length


async def test_a_task_score_is_accepted_where_the_dataset_has_a_task(stage: Stage) -> None:
    header = datasets_pb.UploadHeader(dataset_id="rows", task=resources_pb.TASK_CLASSIFICATION)
    messages = [
        datasets_pb.UploadDatasetRequest(header=header),
        datasets_pb.UploadDatasetRequest(chunk=GOOD_LINE * 10),
    ]
    await stage.datasets.UploadDataset(iter(messages))
    settings = pb.Hyperparameters(early_stopping_metric=pb.METRIC_TASK_SCORE, early_stopping_patience=2)
    job = await stage.job(hyperparameters=settings)
    assert job.hyperparameters.early_stopping_metric == pb.METRIC_TASK_SCORE


async def test_patience_that_can_come_to_pass_is_accepted(stage: Stage) -> None:
    await stage.upload(GOOD_LINE * 10)
    settings = pb.Hyperparameters(early_stopping_patience=3, max_steps=40)
    assert (await stage.job(hyperparameters=settings)).hyperparameters.early_stopping_patience == 3


async def test_a_full_queue_says_when_to_try_again(tmp_path: Path) -> None:
    async with running(tmp_path, max_queued_jobs=1) as stage:
        await stage.upload(GOOD_LINE)
        await stage.job()
        refusal = await create_refused(stage)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert refusal.retry_seconds is not None and refusal.retry_seconds > 0


async def test_a_nearly_full_disk_takes_neither_job_nor_upload(tmp_path: Path) -> None:
    async with running(tmp_path) as stage:
        await stage.upload(GOOD_LINE)
    async with running(tmp_path, min_free_disk_bytes=1 << 60) as stage:
        for call in (stage.job(), stage.upload(GOOD_LINE, "more")):
            refusal = await refused(call)
            assert (refusal.code, refusal.reason) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "DISK_NEARLY_FULL",
            )
        assert stage.files() == ["rows.jsonl"]


FIRST = "adapters/support/versions/1"


async def test_a_job_that_starts_from_a_version_takes_over_what_its_weights_mean(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    settings = pb.Hyperparameters(rank=4, alpha=12, target_modules=["q_proj"], dropout=0.5, epochs=9)
    await stage.job(technique=pb.TECHNIQUE_QLORA, hyperparameters=settings)
    await run_to_success(stage)
    job = await stage.job(adapter_id="other", start_version=FIRST)
    assert (job.start_version, job.technique) == (FIRST, pb.TECHNIQUE_QLORA)
    taken = job.hyperparameters
    assert (taken.rank, taken.alpha, list(taken.target_modules)) == (4, 12, ["q_proj"])
    assert (taken.dropout, taken.epochs) != (0.5, 9), "how it was trained is no part of what it is"
    assert (await stage.tuning.GetTuningJob(pb.GetTuningJobRequest(name=job.name))).start_version == FIRST


async def test_an_adapter_that_a_job_starts_from_cannot_be_deleted_before_that_ended(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    await stage.job()
    await run_to_success(stage)
    job = await stage.job(adapter_id="other", start_version=FIRST)
    request = adapters_pb.DeleteAdapterRequest(name="adapters/support")
    refusal = await refused(stage.adapters.DeleteAdapter(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ADAPTER_IN_USE")
    await stage.tuning.CancelTuningJob(pb.CancelTuningJobRequest(name=job.name))
    await stage.adapters.DeleteAdapter(request)
