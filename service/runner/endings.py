"""How jobs end, or go back to the queue, once their trainer is gone.

Registry and files change in such an order that a crash at any point between is repaired by the next start:
success is recorded before the work directory goes, a cancel after everything has gone. Knows no processes.
"""

import asyncio
from collections.abc import Callable

import structlog

from service.errors import Conflict, WrongState
from service.metrics import Metrics
from service.registry import JobRow, JobState, Registry, StateChanged
from service.registry.states import JOB_ENDED, JOB_OWNED
from service.runner.attempt import Crash
from service.runner.files import JobFiles
from trainer.events import CheckpointSaved, Published

_log = structlog.get_logger(__name__)
_MAX_MESSAGE_CHARACTERS = 1000


class Endings:
    """Ends jobs that this service owns, at the epoch in the row that it is given."""

    def __init__(
        self,
        *,
        registry: Registry,
        files: JobFiles,
        metrics: Metrics,
        clock: Callable[[], float],
        max_crashes: int,
    ) -> None:
        self._registry = registry
        self._files = files
        self._metrics = metrics
        self._clock = clock
        self._max_crashes = max_crashes

    async def succeed(self, job: JobRow, published: Published) -> None:
        """Make the version; `clean_up` comes next, once the trainer is gone. Raises Conflict, WrongState."""
        version = await self._registry.succeed_job(job.id, job.epoch, published)
        self._count(job, JobState.SUCCEEDED)
        _log.info("job succeeded", job=job.id, model=version.model)

    async def adopt(self, job: JobRow) -> bool:
        """Succeed with an artifact that an earlier attempt published and nobody recorded, if there is one."""
        registered = await self._registry.registered_digests()
        artifact = await asyncio.to_thread(self._files.find_published, job.id, registered)
        if artifact is None:
            return False
        step = 0 if job.latest_metrics is None else job.latest_metrics.step
        published = Published(
            time=self._clock(),
            step=step,
            digest=artifact.digest,
            size_bytes=artifact.size_bytes,
            rank=artifact.rank,
            best_step=job.best_step,
        )
        await self.succeed(job, published)
        await self.clean_up(job)
        return True

    async def fail(self, job: JobRow, reason: str, message: str) -> None:
        """End badly; leave no file. Raises Conflict, WrongState."""
        await self._registry.fail_job(job.id, job.epoch, reason, message[:_MAX_MESSAGE_CHARACTERS])
        self._count(job, JobState.FAILED)
        _log.warning("job failed", job=job.id, reason=reason, message=message)
        await self.clean_up(job)

    async def stopped(self, job: JobRow, crash: Crash) -> None:
        """The trainer ended without a result: cancelled, paused, to be tried again, or tried often enough.

        Raises Conflict when another owner took the job over.
        """
        while True:
            present = await self._present(job)
            try:
                if present.state == JobState.CANCELLING:
                    await self._cancel(job)
                elif await self.adopt(present):
                    pass
                elif present.state == JobState.PAUSING:
                    await self._pause(job)
                elif crash.is_final:
                    await self.fail(job, crash.reason, crash.message)
                elif not (got_somewhere := await self.got_somewhere(present)) and (
                    present.crashes + 1 >= self._max_crashes
                ):
                    tries = f" It was attempt {present.attempt}, and the last {self._max_crashes} ended so."
                    await self.fail(job, crash.reason, crash.message + tries)
                else:
                    await self._registry.requeue_job(
                        job.id,
                        job.epoch,
                        crash=(crash.reason, crash.message),
                        crashes=1 if got_somewhere else present.crashes + 1,
                    )
                    _log.warning("job is tried again", job=job.id, reason=crash.reason, message=crash.message)
                return
            except WrongState:
                # A wish came between the look and the write; look again.
                continue

    async def got_somewhere(self, job: JobRow) -> bool:
        """Whether the present attempt kept a checkpoint."""
        told = await self._registry.events_of(job.id, {CheckpointSaved.kind, StateChanged.kind})
        for row in reversed(told):
            match row.body:
                case CheckpointSaved():
                    return True
                case StateChanged(state=JobState.RUNNING):
                    break
        return False

    async def put_back(self, job: JobRow) -> None:
        """The service stops, or its owner vanished: back to the queue, or to the end of a cancel or pause.

        Raises Conflict when another owner was faster.
        """
        while True:
            present = await self._present(job)
            try:
                if present.state == JobState.CANCELLING:
                    await self._cancel(job)
                elif present.state == JobState.PAUSING:
                    await self._pause(job)
                else:
                    await self._registry.requeue_job(job.id, job.epoch)
                    _log.info("job goes back to the queue", job=job.id)
                return
            except WrongState:
                continue

    async def clean_up(self, job: JobRow) -> None:
        """Remove the work directory, and what the job published that no version stands on."""
        registered = await self._registry.registered_digests()
        await asyncio.to_thread(self._files.remove_artifacts_of, job.id, registered)
        await asyncio.to_thread(self._files.remove_work, job.id)

    async def clean_up_ended(self, job: JobRow) -> None:
        """The same, if the job ended in our hands and not in another owner's."""
        present = await self._registry.get_job(job.id)
        if present.state in JOB_ENDED and present.epoch == job.epoch:
            await self.clean_up(job)

    async def _cancel(self, job: JobRow) -> None:
        await self.clean_up(job)
        await self._registry.cancel_job(job.id, job.epoch)
        self._count(job, JobState.CANCELLED)
        _log.info("job cancelled", job=job.id)

    def _count(self, job: JobRow, state: JobState) -> None:
        if job.start_time is not None:
            self._metrics.job_ended(job.technique, state, self._clock() - job.start_time)

    async def _pause(self, job: JobRow) -> None:
        await self._registry.pause_job(job.id, job.epoch)
        _log.info("job paused", job=job.id)

    async def _present(self, job: JobRow) -> JobRow:
        present = await self._registry.get_job(job.id)
        if present.epoch != job.epoch or present.state not in JOB_OWNED:
            raise Conflict(
                "FENCED_OFF",
                f"job {job.id!r} is {present.state} at epoch {present.epoch}; epoch {job.epoch} is over",
            )
        return present
