"""TuningService, over the wire."""

import asyncio
from pathlib import Path

import grpc
import pytest

from hotlora.v1 import adapter_service_pb2 as adapters_pb
from hotlora.v1 import dataset_service_pb2 as datasets_pb
from hotlora.v1 import planning_service_pb2 as planning_pb
from hotlora.v1 import resources_pb2 as resources_pb
from hotlora.v1 import tuning_service_pb2 as pb
from service.disk import Disk
from service.registry import EventRow, JobState, Registry, VersionState
from service.registry.rows import ProgressEvent
from service.rpc.boundary import Drain
from service.rpc.following import Following
from service.rpc.tuning import TuningServicer
from tests.contract.stage import BASE, CONTEXT_LENGTH, GOOD_LINE, Refusal, Stage, refused, running
from trainer import events
from trainer.config import Technique

HISTORY: tuple[ProgressEvent, ...] = (
    events.Loading(time=1.0, pid=7),
    events.FirstForward(time=2.0),
    events.Metrics(
        time=3.0,
        step=1,
        total_steps=4,
        loss=2.5,
        learning_rate=2e-4,
        grad_norm=0.5,
        tokens_per_second=200.0,
        peak_memory_bytes=1 << 33,
        eta_seconds=9.0,
        epoch=0.25,
        tokens=640,
    ),
    events.FirstStep(time=3.5, step=1),
    events.Evaluation(time=4.0, step=2, eval_loss=2.25, rows=6, best_step=2),
    events.CheckpointSaved(time=5.0, step=2),
    events.Resumed(time=6.0, step=2),
    events.Fit(
        time=6.5,
        verdict=events.Verdict.OVERFITTING,
        step=4,
        since_step=2,
        best_step=2,
        start_loss=2.5,
        train_loss=0.5,
        eval_loss=2.5,
        best_eval_loss=2.25,
        stopped_early=False,
        sentence="Overfitting since step 2.",
    ),
    events.Saving(time=7.0, step=4, best_step=2),
)
PUBLISHED = events.Published(time=8.0, step=4, digest="ab" * 32, size_bytes=1000, rank=16, best_step=2)
LAST_SEQUENCE = 1 + 1 + len(HISTORY) + 2
"""QUEUED, RUNNING, the history, then Published and SUCCEEDED."""


async def create_refused(stage: Stage, **fields: object) -> Refusal:
    return await refused(stage.job(**fields))


async def run_to_success(stage: Stage) -> None:
    """Do to the queued job what a runner and a trainer would."""
    job = await stage.registry.claim_next_job("owner")
    assert job is not None
    for event in HISTORY:
        await stage.registry.append_event(job.id, job.epoch, event)
    await stage.registry.succeed_job(job.id, job.epoch, PUBLISHED)


def watch(stage: Stage, after_sequence: int = 0) -> grpc.aio.UnaryStreamCall:
    request = pb.WatchTuningJobRequest(name="tuningJobs/job-1", after_sequence=after_sequence)
    return stage.tuning.WatchTuningJob(request)


async def watched(stage: Stage, after_sequence: int = 0) -> list[pb.WatchTuningJobResponse]:
    return [response async for response in watch(stage, after_sequence)]


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


async def test_a_setting_without_effect_on_the_technique_is_refused_with_those_that_read_it(
    stage: Stage,
) -> None:
    await stage.upload(GOOD_LINE)
    settings = pb.Hyperparameters(rank=8, target_modules=["q_proj"], learning_rate=1e-5)
    refusal = await create_refused(stage, technique=pb.TECHNIQUE_FULL, hyperparameters=settings)
    assert set(refusal.violations) == {"hyperparameters.rank", "hyperparameters.target_modules"}
    assert "full" in refusal.violations["hyperparameters.rank"]
    assert "lora or qlora" in refusal.violations["hyperparameters.rank"]
    refusal = await create_refused(stage, hyperparameters=pb.Hyperparameters(virtual_tokens=8))
    assert "prompt_tuning" in refusal.violations["hyperparameters.virtual_tokens"]


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


async def test_an_objective_that_the_dataset_is_not_for_is_refused_with_both_named(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    await stage.upload(b'{"prompt": "hello", "chosen": "world", "rejected": "moon"}\n', "pairs")
    refusal = await create_refused(stage, objective=pb.OBJECTIVE_PREFERENCE)
    assert "preference" in refusal.violations["objective"]
    assert "conversations" in refusal.violations["objective"]
    refusal = await create_refused(stage, dataset="datasets/pairs", objective=pb.OBJECTIVE_SUPERVISED)
    assert "supervised" in refusal.violations["objective"]
    assert "preferences" in refusal.violations["objective"]
    refusal = await create_refused(stage, hyperparameters=pb.Hyperparameters(dpo_beta=0.2))
    assert "preference" in refusal.violations["hyperparameters.dpo_beta"]


async def test_target_modules_that_the_base_has_not_are_refused_with_those_it_has(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    for module in ("lm_head", "wishful"):
        settings = pb.Hyperparameters(target_modules=["q_proj", module])
        refusal = await create_refused(stage, hyperparameters=settings)
        text = refusal.violations["hyperparameters.target_modules"]
        assert module in text
        assert "down_proj, q_proj, v_proj" in text


async def test_all_linear_is_a_target_by_itself_and_contradicts_any_other(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    job = await stage.job(hyperparameters=pb.Hyperparameters(target_modules=["all-linear"]))
    assert job.hyperparameters.target_modules == ["all-linear"]
    settings = pb.Hyperparameters(target_modules=["all-linear", "q_proj"])
    refusal = await create_refused(stage, hyperparameters=settings)
    assert "q_proj" in refusal.violations["hyperparameters.target_modules"]


async def test_virtual_tokens_have_to_fit_into_the_context_with_the_longest_row(stage: Stage) -> None:
    dataset = await stage.upload(b'{"prompt": "hello", "completion": "' + b"x" * 300 + b'"}\n')
    room = CONTEXT_LENGTH - dataset.longest_row_tokens
    prompt = {"technique": pb.TECHNIQUE_PROMPT_TUNING}
    assert await stage.job(**prompt, hyperparameters=pb.Hyperparameters(virtual_tokens=room))
    settings = pb.Hyperparameters(virtual_tokens=room + 1)
    refusal = await create_refused(stage, **prompt, hyperparameters=settings)
    assert f"at most {room}" in refusal.violations["hyperparameters.virtual_tokens"]


async def test_settings_that_contradict_each_other_are_refused_by_both_names(stage: Stage) -> None:
    await stage.upload(GOOD_LINE * 9)
    refusal = await create_refused(
        stage,
        hyperparameters=pb.Hyperparameters(
            validation_fraction=0, eval_every_steps=3, max_steps=1, warmup_ratio=0.5
        ),
    )
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"hyperparameters.eval_every_steps", "hyperparameters.warmup_ratio"}
    assert "hyperparameters.validation_fraction" in refusal.violations["hyperparameters.eval_every_steps"]
    assert "hyperparameters.max_steps 1" in refusal.violations["hyperparameters.warmup_ratio"]
    kept = pb.Hyperparameters(validation_fraction=0, max_steps=2, warmup_ratio=0.5)
    assert (await stage.job(hyperparameters=kept)).hyperparameters.max_steps == 2
    assert await stage.job(hyperparameters=pb.Hyperparameters(max_steps=1)), "the default warm-up is no wish"


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


async def test_everything_that_the_engine_or_the_base_cannot_do_is_refused_at_once(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    refusal = await create_refused(
        stage, base_model="evil/repo", hyperparameters=pb.Hyperparameters(rank=33, max_sequence_length=513)
    )
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {
        "base_model",
        "hyperparameters.rank",
        "hyperparameters.max_sequence_length",
    }
    assert "32" in refusal.violations["hyperparameters.rank"]
    assert "512" in refusal.violations["hyperparameters.max_sequence_length"]


async def test_a_row_above_the_usual_length_is_planned_for_and_its_job_accepted(tmp_path: Path) -> None:
    async with running(tmp_path, context_length=4_096) as stage:
        dataset = await stage.upload(b'{"prompt": "hello", "completion": "' + b"x" * 3_000 + b'"}\n')
        job = await stage.job()
        assert job.hyperparameters.max_sequence_length == dataset.longest_row_tokens > 2_048


async def test_a_row_longer_than_the_sequence_is_named_before_anything_is_trained(stage: Stage) -> None:
    long_line = b'{"prompt": "hello", "completion": "' + b"x" * 200 + b'"}\n'
    dataset = await stage.upload(GOOD_LINE + b"\n" + long_line)
    length = dataset.longest_row_tokens
    refusal = await create_refused(stage, hyperparameters=pb.Hyperparameters(max_sequence_length=length - 1))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert f", line 3, has {length} tokens" in refusal.violations["hyperparameters.max_sequence_length"]
    assert await stage.job(hyperparameters=pb.Hyperparameters(max_sequence_length=length))


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


PATIENCE = "hyperparameters.early_stopping_patience"
METRIC = "hyperparameters.early_stopping_metric"


@pytest.mark.parametrize(
    ("rows", "settings", "field", "words"),
    [
        (10, {"early_stopping_patience": 1, "validation_fraction": 0}, PATIENCE, "validation_fraction is 0"),
        (1, {"early_stopping_patience": 1}, PATIENCE, "the dataset has 1 row only"),
        (
            10,
            {"early_stopping_patience": 4, "max_steps": 40},
            PATIENCE,
            "with hyperparameters.eval_every_steps 10, the run of 40 steps has 4",
        ),
        (10, {"early_stopping_metric": pb.METRIC_TASK_SCORE}, METRIC, "needs a dataset with a task"),
    ],
)
async def test_settings_of_early_stopping_that_contradict_others_are_refused_naming_both(
    stage: Stage, rows: int, settings: dict[str, object], field: str, words: str
) -> None:
    await stage.upload(GOOD_LINE * rows)
    refusal = await create_refused(stage, hyperparameters=pb.Hyperparameters(**settings))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert words in refusal.violations[field]


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


async def test_a_long_text_is_as_many_rows_as_the_pieces_it_is_trained_in(stage: Stage) -> None:
    await stage.upload(b'{"text": "' + b"word " * 2_000 + b'"}\n')
    settings = pb.Hyperparameters(early_stopping_patience=3, batch_size=1, epochs=1)
    job = await stage.job(hyperparameters=settings)
    assert job.hyperparameters.max_sequence_length == CONTEXT_LENGTH
    refusal = await create_refused(
        stage, hyperparameters=pb.Hyperparameters(early_stopping_patience=30, eval_every_steps=1, epochs=1)
    )
    assert "the run of 3 steps has 3" in refusal.violations[PATIENCE]


async def test_patience_that_can_come_to_pass_is_accepted(stage: Stage) -> None:
    await stage.upload(GOOD_LINE * 10)
    settings = pb.Hyperparameters(early_stopping_patience=3, max_steps=40)
    assert (await stage.job(hyperparameters=settings)).hyperparameters.early_stopping_patience == 3


async def test_a_dataset_that_does_not_exist_is_not_found(stage: Stage) -> None:
    refusal = await create_refused(stage)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "DATASET_NOT_FOUND")


async def test_an_adapter_may_not_have_the_base_models_name(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    refusal = await create_refused(stage, adapter_id=BASE)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NAME_OF_BASE_MODEL")


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


async def test_cancelling_a_queued_job_ends_it_and_cancelling_again_changes_nothing(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    request = pb.CancelTuningJobRequest(name=(await stage.job()).name)
    first = await stage.tuning.CancelTuningJob(request)
    assert first.state == pb.TuningJob.STATE_CANCELLED
    assert await stage.tuning.CancelTuningJob(request) == first


async def test_cancelling_a_finished_job_names_its_state(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    request = pb.CancelTuningJobRequest(name=(await stage.job()).name)
    await run_to_success(stage)
    refusal = await refused(stage.tuning.CancelTuningJob(request))
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.metadata["state"] == "SUCCEEDED"
    assert "RUNNING" in refusal.metadata["allowed_states"]


async def test_pausing_and_resuming_move_a_job_and_repeating_them_changes_nothing(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    name = (await stage.job()).name
    for _ in range(2):
        paused = await stage.tuning.PauseTuningJob(pb.PauseTuningJobRequest(name=name))
        assert paused.state == pb.TuningJob.STATE_PAUSED
    for _ in range(2):
        resumed = await stage.tuning.ResumeTuningJob(pb.ResumeTuningJobRequest(name=name))
        assert resumed.state == pb.TuningJob.STATE_QUEUED
    job = await stage.registry.claim_next_job("owner")
    assert job is not None
    pausing = await stage.tuning.PauseTuningJob(pb.PauseTuningJobRequest(name=name))
    assert pausing.state == pb.TuningJob.STATE_PAUSING
    refusal = await refused(stage.tuning.ResumeTuningJob(pb.ResumeTuningJobRequest(name=name)))
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.metadata == {"state": "PAUSING", "allowed_states": "PAUSED,QUEUED,RUNNING"}
    await stage.registry.fail_job(job.id, job.epoch, "INTERNAL", "It broke.")
    refusal = await refused(stage.tuning.PauseTuningJob(pb.PauseTuningJobRequest(name=name)))
    assert refusal.metadata["state"] == "FAILED"


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


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"technique": pb.TECHNIQUE_LORA}, "technique", "must be qlora"),
        ({"hyperparameters": pb.Hyperparameters(rank=8)}, "hyperparameters.rank", "must be 4"),
        ({"hyperparameters": pb.Hyperparameters(alpha=9)}, "hyperparameters.alpha", "must be 12"),
        (
            {"hyperparameters": pb.Hyperparameters(target_modules=["v_proj"])},
            "hyperparameters.target_modules",
            "must be q_proj",
        ),
    ],
)
async def test_what_the_weights_mean_cannot_be_changed_by_going_on_with_them(
    stage: Stage, fields: dict[str, object], field: str, words: str
) -> None:
    await stage.upload(GOOD_LINE)
    settings = pb.Hyperparameters(rank=4, alpha=12, target_modules=["q_proj"])
    await stage.job(technique=pb.TECHNIQUE_QLORA, hyperparameters=settings)
    await run_to_success(stage)
    refusal = await create_refused(stage, start_version=FIRST, **fields)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert words in refusal.violations[field]
    assert "support@1" in refusal.violations[field]


async def test_a_version_that_is_not_there_or_failed_is_no_start(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    assert (await create_refused(stage, start_version=FIRST)).code is grpc.StatusCode.NOT_FOUND
    await stage.job()
    await run_to_success(stage)
    version = await stage.registry.get_version("support", 1)
    await stage.registry.move_version(version, VersionState.FAILED, failure=("CORRUPT", "It is damaged."))
    refusal = await create_refused(stage, start_version=FIRST)
    assert (refusal.code, refusal.metadata["state"]) == (grpc.StatusCode.FAILED_PRECONDITION, "FAILED")


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


async def test_jobs_are_listed_newest_first_in_pages_and_by_filter(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    for number in range(5):
        await stage.job(adapter_id="even" if number % 2 == 0 else "odd")
    await stage.tuning.CancelTuningJob(pb.CancelTuningJobRequest(name="tuningJobs/job-2"))
    names, token = [], ""
    while True:
        page = await stage.tuning.ListTuningJobs(pb.ListTuningJobsRequest(page_size=2, page_token=token))
        names += [job.name for job in page.tuning_jobs]
        token = page.next_page_token
        if not token:
            break
    assert names == [f"tuningJobs/job-{number}" for number in (5, 4, 3, 2, 1)]
    odd = await stage.tuning.ListTuningJobs(
        pb.ListTuningJobsRequest(adapter="adapters/odd", states=[pb.TuningJob.STATE_QUEUED])
    )
    assert [job.name for job in odd.tuning_jobs] == ["tuningJobs/job-4"]


async def test_a_page_token_of_another_list_is_refused(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    for _ in range(2):
        await stage.job()
    page = await stage.tuning.ListTuningJobs(pb.ListTuningJobsRequest(page_size=1))
    for token in (page.next_page_token[:-3], "x", "é", "bnVsbA"):
        refusal = await refused(stage.tuning.ListTuningJobs(pb.ListTuningJobsRequest(page_token=token)))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "page_token" in refusal.violations
    other_filter = pb.ListTuningJobsRequest(page_token=page.next_page_token, adapter="adapters/support")
    assert "page_token" in (await refused(stage.tuning.ListTuningJobs(other_filter))).violations


async def test_a_watch_begins_with_the_present_and_ends_when_everything_was_sent(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    await stage.job()
    await run_to_success(stage)
    first, *rest = await watched(stage)
    assert first.tuning_job.state == pb.TuningJob.STATE_SUCCEEDED
    assert first.tuning_job.adapter_version == "adapters/support/versions/1"
    assert first.tuning_job.latest_metrics.peak_memory_bytes == 1 << 33
    assert first.tuning_job.last_sequence == LAST_SEQUENCE
    kinds = [response.event.WhichOneof("event") for response in rest]
    assert kinds == [
        "state_change",
        "state_change",
        "milestone",
        "milestone",
        "metrics",
        "milestone",
        "evaluation",
        "checkpoint_saved",
        "milestone",
        "fit",
        "milestone",
        "milestone",
        "state_change",
    ]
    assert [response.event.sequence for response in rest] == list(range(1, LAST_SEQUENCE + 1))
    milestones = [response.event.milestone.kind for response in rest if response.event.HasField("milestone")]
    kind = pb.Milestone
    assert milestones == [
        kind.KIND_LOADING,
        kind.KIND_FIRST_FORWARD,
        kind.KIND_FIRST_STEP,
        kind.KIND_RESUMED,
        kind.KIND_SAVING,
        kind.KIND_PUBLISHED,
    ]
    assert rest[4].event.metrics.eta_seconds == 9
    assert rest[6].event.evaluation.eval_loss == 2.25
    assert rest[6].event.evaluation.best_step == 2
    assert not rest[6].event.evaluation.HasField("task_score")
    fit = rest[9].event.fit
    assert (fit.verdict, fit.since_step, fit.train_loss) == (pb.Fit.VERDICT_OVERFITTING, 2, 0.5)
    assert (first.tuning_job.fit, first.tuning_job.best_step) == (fit, 2)
    assert [rest[index].event.milestone.best_step for index in (10, 11)] == [2, 2]


async def test_from_any_cursor_a_watch_misses_nothing_and_repeats_nothing(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    await stage.job()
    await run_to_success(stage)
    _, *whole = await watched(stage)
    for cursor in range(LAST_SEQUENCE + 3):
        first, *rest = await watched(stage, cursor)
        assert first.HasField("tuning_job")
        assert rest == whole[cursor:]


async def test_a_watch_that_is_broken_off_after_every_event_sees_each_once_while_the_job_goes_on(
    stage: Stage,
) -> None:
    await stage.upload(GOOD_LINE)
    await stage.job()
    trainer = asyncio.create_task(run_to_success(stage))
    sequences: list[int] = []
    while not sequences or sequences[-1] < LAST_SEQUENCE:
        call = watch(stage, sequences[-1] if sequences else 0)
        assert (await call.read()).HasField("tuning_job")
        sequences.append((await call.read()).event.sequence)
        call.cancel()
    await trainer
    assert sequences == list(range(1, LAST_SEQUENCE + 1))


async def test_a_watcher_hears_of_each_event_as_it_happens(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    await stage.job()
    call = watch(stage)
    assert (await call.read()).tuning_job.state == pb.TuningJob.STATE_QUEUED
    assert (await call.read()).event.state_change.state == pb.TuningJob.STATE_QUEUED
    job = await stage.registry.claim_next_job("owner")
    assert job is not None
    async with asyncio.timeout(2):  # far less than the time after which a watch looks by itself
        assert (await call.read()).event.state_change.state == pb.TuningJob.STATE_RUNNING
        for event in HISTORY:
            await stage.registry.append_event(job.id, job.epoch, event)
            assert (await call.read()).event.time.ToNanoseconds() == event.time * 1e9
        await stage.registry.fail_job(job.id, job.epoch, "NAN_LOSS", "The loss is not a number.")
        last = (await call.read()).event.state_change
        assert (last.state, last.failure.reason) == (pb.TuningJob.STATE_FAILED, "NAN_LOSS")
        assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


class LateRegistry:
    """A registry in which a job ends right after its events were read."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.get_job = registry.get_job

    async def events_after(self, job_id: str, sequence: int, limit: int) -> list[EventRow]:
        events = await self._registry.events_after(job_id, sequence, limit)
        if (await self._registry.get_job(job_id)).state is JobState.QUEUED:
            await self._registry.request_cancel(job_id)
        return events


async def test_a_change_between_reading_and_waiting_wakes_the_watch(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    await stage.job()
    servicer = TuningServicer(
        registry=LateRegistry(stage.registry),
        following=Following(changes=stage.changes, drain=Drain()),
        disk=Disk(directory=stage.home, min_free_bytes=0),
        base_model=BASE,
        context_length=CONTEXT_LENGTH,
        max_rank=lambda: 1,
        linear_modules=(),
        unservable=dict,
        parameters=0,
    )
    async with asyncio.timeout(3):  # far less than the time after which a watch looks by itself
        request = pb.WatchTuningJobRequest(name="tuningJobs/job-1")
        responses = [response async for response in servicer.WatchTuningJob(request, None)]
    assert [response.event.sequence for response in responses[1:]] == [1, 2]


async def test_a_crashed_attempt_says_why_the_job_is_queued_again(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    await stage.job()
    job = await stage.registry.claim_next_job("owner")
    assert job is not None
    await stage.registry.requeue_job(job.id, job.epoch, crash=("TRAINER_CRASHED", "It was killed."))
    await stage.tuning.CancelTuningJob(pb.CancelTuningJobRequest(name="tuningJobs/job-1"))
    changes = [response.event.state_change for response in (await watched(stage))[1:]]
    assert [(one.state, one.attempt, one.failure.reason) for one in changes] == [
        (pb.TuningJob.STATE_QUEUED, 0, ""),
        (pb.TuningJob.STATE_RUNNING, 1, ""),
        (pb.TuningJob.STATE_QUEUED, 1, "TRAINER_CRASHED"),
        (pb.TuningJob.STATE_CANCELLED, 1, ""),
    ]


async def test_many_watchers_of_one_job_all_see_all_of_it(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    await stage.job()
    watchers = [asyncio.create_task(watched(stage)) for _ in range(20)]
    await run_to_success(stage)
    for responses in await asyncio.gather(*watchers):
        assert [one.event.sequence for one in responses[1:]] == list(range(1, LAST_SEQUENCE + 1))


@pytest.mark.parametrize(
    "method", ["GetTuningJob", "CancelTuningJob", "PauseTuningJob", "ResumeTuningJob", "WatchTuningJob"]
)
async def test_a_job_that_does_not_exist_is_not_found(stage: Stage, method: str) -> None:
    request = getattr(pb, f"{method}Request")(name="tuningJobs/nobody")
    call = getattr(stage.tuning, method)(request)
    refusal = await refused(call.read() if method == "WatchTuningJob" else call)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


async def test_a_technique_whose_versions_could_not_be_served_is_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    reasons = {Technique.FULL: "no engine is to be had"}
    async with running(tmp_path, unservable=lambda: reasons) as stage:
        await stage.upload(GOOD_LINE)
        refusal = await create_refused(stage, technique=pb.TECHNIQUE_FULL)
        await stage.job(technique=pb.TECHNIQUE_LORA)

    assert refusal.violations == {"technique": "no engine is to be had"}
