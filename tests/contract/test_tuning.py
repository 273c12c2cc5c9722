"""TuningService, over the wire: jobs that are there. How they come to be is in `test_tuning_creation`."""

import asyncio

import grpc
import pytest

from hotlora.v1 import tuning_service_pb2 as pb
from service.registry import EventRow, JobState, Registry
from service.rpc import conversion
from service.rpc.boundary import Drain
from service.rpc.following import Following
from service.rpc.tuning import TuningServicer
from tests.contract.stage import GOOD_LINE, Stage, refused
from tests.contract.training import HISTORY, run_to_success
from trainer import events

LAST_SEQUENCE = 1 + 1 + len(HISTORY) + 2
"""QUEUED, RUNNING, the history, then Published and SUCCEEDED."""


def watch(stage: Stage, after_sequence: int = 0) -> grpc.aio.UnaryStreamCall:
    request = pb.WatchTuningJobRequest(name="tuningJobs/job-1", after_sequence=after_sequence)
    return stage.tuning.WatchTuningJob(request)


async def watched(stage: Stage, after_sequence: int = 0) -> list[pb.WatchTuningJobResponse]:
    return [response async for response in watch(stage, after_sequence)]


@pytest.mark.parametrize("stage", list(events.Stage))
def test_every_long_part_of_a_run_has_a_milestone(stage: events.Stage) -> None:
    body = events.Working(time=1.0, stage=stage)
    row = EventRow(job_id="job", sequence=1, time=1.0, kind=body.kind, body=body)
    kind = conversion.event_message(row).milestone.kind
    assert pb.Milestone.Kind.Name(kind) == f"KIND_{stage}"


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
        creation=stage.server.creation,
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
