"""The transition tables are what the registry does: every pair of states is tried."""

from itertools import product
from pathlib import Path

import pytest

from service.errors import Conflict, HotloraError, WrongState
from service.registry import (
    EVALUATION_TRANSITIONS,
    JOB_TRANSITIONS,
    VERSION_TRANSITIONS,
    EvaluationRow,
    EvaluationState,
    JobRow,
    JobState,
    Registry,
    VersionRow,
    VersionState,
)
from service.registry.states import JOB_ENDED
from tests.service.registry_stage import new_job, open_registry, published

FAILURE = ("NO_EFFECT", "It answers as the base.")


async def job_in(registry: Registry, state: JobState) -> JobRow:
    """A job that has come to `state` by legal moves."""
    job = await registry.create_job(new_job())
    if state == JobState.QUEUED:
        return job
    await registry.claim_next_job("me")
    if state == JobState.SUCCEEDED:
        await registry.succeed_job(job.id, 1, published())
    elif state == JobState.FAILED:
        await registry.fail_job(job.id, 1, "INTERNAL", "It broke.")
    elif state in (JobState.PAUSING, JobState.PAUSED):
        await registry.request_pause(job.id)
        if state == JobState.PAUSED:
            await registry.pause_job(job.id, 1)
    elif state != JobState.RUNNING:
        await registry.request_cancel(job.id)
        if state == JobState.CANCELLED:
            await registry.cancel_job(job.id, 1)
    return await registry.get_job(job.id)


async def try_job(registry: Registry, job: JobRow, to: JobState) -> None:
    """Ask for the move by the one method that makes it."""
    if to == JobState.RUNNING:
        await registry.claim_next_job("me")
    elif to == JobState.QUEUED and job.state != JobState.PAUSED:
        await registry.requeue_job(job.id, job.epoch)
    elif to == JobState.QUEUED:
        await registry.request_resume(job.id)
    elif to == JobState.PAUSED and job.state != JobState.QUEUED:
        await registry.pause_job(job.id, job.epoch)
    elif to in (JobState.PAUSING, JobState.PAUSED):
        await registry.request_pause(job.id)
    elif to == JobState.SUCCEEDED:
        await registry.succeed_job(job.id, job.epoch, published())
    elif to == JobState.FAILED:
        await registry.fail_job(job.id, job.epoch, "INTERNAL", "It broke.")
    elif to == JobState.CANCELLED and job.state not in (JobState.QUEUED, JobState.PAUSED):
        await registry.cancel_job(job.id, job.epoch)
    else:
        await registry.request_cancel(job.id)


@pytest.mark.parametrize(("state", "to"), list(product(JobState, repeat=2)))
async def test_a_job_moves_exactly_as_the_table_says(tmp_path: Path, state: JobState, to: JobState) -> None:
    async with open_registry(tmp_path) as registry:
        before = await job_in(registry, state)
        assert before.state == state
        try:
            await try_job(registry, before, to)
        except WrongState as refused:
            assert refused.state == state
            assert state in refused.message
        after = await registry.get_job(before.id)
        # A wish upon a job without a trainer skips the state in which the trainer obeys.
        skipped = {
            (JobState.QUEUED, JobState.CANCELLING),
            (JobState.PAUSED, JobState.CANCELLING),
            (JobState.QUEUED, JobState.PAUSING),
        }
        moved = after != before and (state, to) not in skipped
        assert moved == (to in JOB_TRANSITIONS[state])
        assert not moved or after.state == to
        if after == before:
            assert len(await registry.events_after(before.id, before.last_sequence)) == 0


async def version_in(registry: Registry, state: VersionState) -> VersionRow:
    """A version that has come to `state` by legal moves."""
    job = await registry.create_job(new_job())
    await registry.claim_next_job("me")
    version = await registry.succeed_job(job.id, 1, published())
    path = {
        VersionState.PENDING: [],
        VersionState.VERIFYING: [VersionState.VERIFYING],
        VersionState.ACTIVE: [VersionState.VERIFYING, VersionState.ACTIVE],
        VersionState.FAILED: [VersionState.FAILED],
        VersionState.RETIRING: [VersionState.RETIRING],
        VersionState.RETIRED: [VersionState.RETIRING, VersionState.RETIRED],
    }[state]
    for step in path:
        version = await move(registry, version, step)
    return version


async def move(registry: Registry, version: VersionRow, to: VersionState) -> VersionRow:
    """Move with what a move to that state needs."""
    return await registry.move_version(version, to, failure=FAILURE if to == VersionState.FAILED else None)


@pytest.mark.parametrize(("state", "to"), list(product(VersionState, repeat=2)))
async def test_a_version_moves_exactly_as_the_table_says(
    tmp_path: Path, state: VersionState, to: VersionState
) -> None:
    async with open_registry(tmp_path) as registry:
        before = await version_in(registry, state)
        if to in VERSION_TRANSITIONS[state]:
            after = await move(registry, before, to)
            assert (after.state, after.epoch) == (to, before.epoch + 1)
            with pytest.raises(Conflict):
                await move(registry, before, to)
        else:
            with pytest.raises(WrongState) as refused:
                await move(registry, before, to)
            assert refused.value.state == state
            assert set(refused.value.allowed) == {
                source for source, following in VERSION_TRANSITIONS.items() if to in following
            }
            assert await registry.get_version("support", before.number) == before


async def evaluation_in(registry: Registry, state: EvaluationState) -> EvaluationRow:
    """An evaluation that has come to `state` by legal moves."""
    await version_in(registry, VersionState.ACTIVE)
    (row,) = await registry.evaluations.create_missing()
    if state != EvaluationState.QUEUED:
        claimed = await registry.evaluations.claim("me")
        assert claimed is not None
        row = claimed
    if state not in (EvaluationState.QUEUED, EvaluationState.RUNNING):
        row = await try_evaluation(registry, row, state) or row
    return row


async def try_evaluation(registry: Registry, row: EvaluationRow, to: EvaluationState) -> EvaluationRow | None:
    """Ask for the move by the one method that makes it."""
    match to:
        case EvaluationState.QUEUED:
            return await registry.evaluations.requeue(row)
        case EvaluationState.RUNNING:
            return await registry.evaluations.claim("another")
        case EvaluationState.SUCCEEDED:
            return await registry.evaluations.succeed(row, "{}")
        case EvaluationState.FAILED:
            return await registry.evaluations.fail(row, *FAILURE)


@pytest.mark.parametrize(("state", "to"), list(product(EvaluationState, repeat=2)))
async def test_an_evaluation_moves_exactly_as_the_table_says(
    tmp_path: Path, state: EvaluationState, to: EvaluationState
) -> None:
    async with open_registry(tmp_path) as registry:
        before = await evaluation_in(registry, state)
        try:
            await try_evaluation(registry, before, to)
        except WrongState as refused:
            assert refused.state == state
            assert state in refused.message
        after = await registry.evaluations.get(before.id)
        assert (after != before) == (to in EVALUATION_TRANSITIONS[state])
        assert after.state == (to if after != before else state)


async def test_whoever_was_fenced_off_writes_nothing_more_into_an_evaluation(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        row = await evaluation_in(registry, EvaluationState.RUNNING)
        await registry.evaluations.requeue(row)
        with pytest.raises(Conflict):
            await registry.evaluations.progress(row, 1, 2)
        with pytest.raises(Conflict):
            await registry.evaluations.succeed(row, "{}")


def test_every_state_is_in_its_table_and_reached_from_the_first() -> None:
    assert set(JOB_TRANSITIONS) == set(JobState)
    assert set(VERSION_TRANSITIONS) == set(VersionState)
    assert set(EVALUATION_TRANSITIONS) == set(EvaluationState)
    assert set().union(*EVALUATION_TRANSITIONS.values()) == set(EvaluationState)
    assert set().union(*JOB_TRANSITIONS.values()) == set(JobState)
    assert set().union(*VERSION_TRANSITIONS.values()) == set(VersionState)
    assert {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED} == JOB_ENDED


def test_errors_carry_reason_and_message() -> None:
    refused = WrongState("it is so", state="SO", allowed=["OTHER"])
    assert isinstance(refused, HotloraError)
    assert (refused.reason, refused.message, str(refused)) == ("WRONG_STATE", "it is so", "it is so")
