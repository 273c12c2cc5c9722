"""What callers ask of a job that is there already: to end, to pause, to go on.

A wish that is already fulfilled changes nothing. Moves are those of `JOB_TRANSITIONS`, made by `jobs.move`.
"""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from service.registry import jobs
from service.registry.rows import JobRow, StateChanged
from service.registry.states import JOB_ENDED, JobState

_CANCEL: Mapping[JobState, JobState] = {
    JobState.QUEUED: JobState.CANCELLED,
    JobState.PAUSED: JobState.CANCELLED,
    JobState.RUNNING: JobState.CANCELLING,
    JobState.PAUSING: JobState.CANCELLING,
    JobState.CANCELLING: JobState.CANCELLING,
    JobState.CANCELLED: JobState.CANCELLED,
}
_PAUSE: Mapping[JobState, JobState] = {
    JobState.QUEUED: JobState.PAUSED,
    JobState.RUNNING: JobState.PAUSING,
    JobState.PAUSING: JobState.PAUSING,
    JobState.PAUSED: JobState.PAUSED,
}
_RESUME: Mapping[JobState, JobState] = {
    JobState.PAUSED: JobState.QUEUED,
    JobState.QUEUED: JobState.QUEUED,
    JobState.RUNNING: JobState.RUNNING,
}
"""A PAUSING job cannot be called back: its trainer may have ended already."""


async def request_cancel(connection: AsyncConnection, job_id: str, now: float) -> JobRow:
    return await _wish(connection, job_id, _CANCEL, "be cancelled", now)


async def request_pause(connection: AsyncConnection, job_id: str, now: float) -> JobRow:
    return await _wish(connection, job_id, _PAUSE, "be paused", now)


async def request_resume(connection: AsyncConnection, job_id: str, now: float) -> JobRow:
    return await _wish(connection, job_id, _RESUME, "be resumed", now)


async def _wish(
    connection: AsyncConnection,
    job_id: str,
    outcomes: Mapping[JobState, JobState],
    action: str,
    now: float,
) -> JobRow:
    job = await jobs.get(connection, job_id)
    to = outcomes.get(job.state)
    if to is None:
        raise jobs.wrong_state(job, frozenset(outcomes), action)
    if to == job.state:
        return job
    change = StateChanged(time=now, state=to, attempt=job.attempt)
    sources = frozenset({job.state})
    if to in JOB_ENDED:
        return await jobs.move(connection, job_id, change, sources=sources, end_time=now)
    return await jobs.move(connection, job_id, change, sources=sources)
