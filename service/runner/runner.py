"""Runs queued jobs: claims them, gives each to a trainer process, ends them, rescues those without an owner.

The registry decides who owns a job; this module owns the fork server and the work directories. It knows
nothing of engines, and of training only the job file and the event lines.
"""

import asyncio
import errno
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import structlog

from service.changes import Changes
from service.disk import Disk
from service.errors import Conflict, Exhausted, HotloraError, NotFound, Unavailable, WrongState
from service.machine import memory_kills
from service.metrics import Metrics
from service.registry import JobRow, Registry
from service.runner.attempt import Attempt, Crash, NotStarted, Outcome
from service.runner.endings import Endings
from service.runner.files import JobFiles
from service.runner.forkserver import ForkServer
from service.runner.limits import Limits
from service.runner.owners import SCRATCH_PREFIX, Owner, Owners
from service.runner.processes import ProcessMark
from service.settings import Settings
from trainer import events
from trainer.config import BaseModel, JobFile, StartVersion

COMMAND = (sys.executable, "-m", "trainer.forkserver")
_log = structlog.get_logger(__name__)
_MAX_SOCKET_DIR = 60
"""A Unix socket's path has about 100 bytes; a job's socket takes up to 40 of them."""
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
"""What the machine lacks for a while; no job is to blame."""


class Runner:
    """See the module. One in each service; several services may share a registry."""

    def __init__(
        self,
        *,
        registry: Registry,
        changes: Changes,
        settings: Settings,
        base_models: Sequence[BaseModel],
        metrics: Metrics,
        command: Sequence[str] = COMMAND,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
        ids: Callable[[], str] = lambda: secrets.token_hex(8),
        memory_kills: Callable[[], int] = memory_kills,
    ) -> None:
        """`command` starts a fork server, which holds the first of `base_models` ready; its arguments are
        added. Jobs of other bases wait in the queue. `clock` gives seconds since the epoch.
        `memory_kills` counts what the kernel has killed for want of memory."""
        self._registry = registry
        self._changes = changes
        self._settings = settings
        self._base_models = {base.name: base for base in base_models}
        self._limits = limits or Limits()
        self._memory_kills = memory_kills
        self._owner_name = ids()
        self._files = JobFiles(work_dir=settings.work_dir, artifacts_dir=settings.artifacts_dir)
        self._disk = Disk(directory=settings.home, min_free_bytes=settings.min_free_disk_bytes)
        self._owners_dir = settings.home / "owners"
        self._owners = Owners(self._owners_dir, self._limits.owner_gone_seconds)
        self._endings = Endings(
            registry=registry,
            files=self._files,
            metrics=metrics,
            clock=clock,
            max_crashes=self._limits.max_crashes,
        )
        self._socket_dir = _private_directory()
        threads = ("--threads", str(settings.trainer_threads))
        self._server = ForkServer(
            command=(*command, str(self._socket_dir), *threads, "--preload", str(base_models[0].path)),
            log_path=settings.logs_dir / "trainer.log",
            limits=self._limits,
        )
        self._running: set[str] = set()
        self._claims = asyncio.Lock()

    async def run(self) -> None:
        """Run jobs until cancelled. Then running jobs go back to the queue, and no process is left."""
        self._settings.make_directories()
        owner = Owner(self._owners_dir, self._owner_name, self._socket_dir)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._server.run())
                await self._tidy_up()
                group.create_task(self._rescue_again_and_again())
                for _ in range(self._settings.max_running_jobs):
                    group.create_task(self._work())
        finally:
            owner.release()

    async def ready(self) -> None:
        """Wait until a job could begin at once."""
        await self._server.ready()

    @property
    def trainer_pid(self) -> int | None:
        """Process id of the present fork server."""
        return self._server.pid

    async def _work(self) -> None:
        while True:
            with _contained("the job runner waits"):
                await self._run_next_job()
                continue
            await asyncio.sleep(self._limits.retry_seconds)

    async def _run_next_job(self) -> None:
        """Run the oldest queued job; where there is none, return once there may be one."""
        await self._server.ready()
        seen = self._changes.seen("jobs")
        self._disk.refuse_if_full()
        async with self._claimed() as job:
            if job is not None:
                await self._run_job(job)
        if job is None:
            await self._changes.wait("jobs", seen, self._limits.poll_seconds)

    @asynccontextmanager
    async def _claimed(self) -> AsyncIterator[JobRow | None]:
        # Under the lock, a rescue never sees a job that is ours and not yet known to run.
        async with self._claims:
            job = await self._registry.claim_next_job(self._owner_name, self._base_models.keys())
            if job is not None:
                self._running.add(job.id)
        try:
            yield job
        finally:
            if job is not None:
                self._running.discard(job.id)

    async def _run_job(self, job: JobRow) -> None:
        try:
            await self._attempt(job)
        except asyncio.CancelledError:
            await self._put_back(job)
            raise
        except (Conflict, NotFound, WrongState) as error:
            _log.warning("job is somebody else's by now", job=job.id, message=error.message)
        except HotloraError:
            # The registry is busy or full. The job is ours without a trainer: the next rescue finds it.
            raise
        except OSError as error:
            if error.errno in _SHORTAGES:
                raise  # as above
            if error.errno == errno.ENOSPC:
                await self._endings.fail(job, "DISK_FULL", "The service's disk is full; free some space.")
            else:
                await self._met_a_fault(job)
        except Exception:
            await self._met_a_fault(job)

    async def _met_a_fault(self, job: JobRow) -> None:
        """Of ours, or of the disk's: with the same job it may come again, so it counts as a crash."""
        _log.exception("a fault of the job runner", job=job.id)
        await self._endings.stopped(
            job, Crash(reason="INTERNAL", message="The job runner had a fault; its log has the rest.")
        )

    async def _attempt(self, job: JobRow) -> None:
        if await self._endings.adopt(job):
            return
        job_path = await self._write_job_file(job)
        async with Attempt(
            job=job,
            job_path=job_path,
            mark_path=self._files.mark_path(job.id),
            socket_path=self._socket_dir / f"{job.id[:16]}-{job.epoch}.sock",
            server=self._server,
            registry=self._registry,
            changes=self._changes,
            limits=self._limits,
            memory_kills=self._memory_kills,
        ) as attempt:
            await self._settle(job, attempt, await attempt.outcome())

    async def _write_job_file(self, job: JobRow) -> Path:
        dataset = await self._registry.get_dataset(job.dataset_id)
        work_path = self._files.work_path(job.id)
        start = await self._start_version(job)
        job_file = JobFile(
            job_id=job.id,
            attempt=job.attempt,
            adapter_id=job.adapter_id,
            base_model=self._base_models[job.base_model],
            dataset_path=self._settings.datasets_dir / f"{job.dataset_id}.jsonl",
            dataset_sha256=dataset.sha256,
            technique=job.technique,
            objective=job.objective,
            task=dataset.task,
            hyperparameters=job.hyperparameters,
            work_path=work_path,
            artifacts_path=self._settings.artifacts_dir,
            start_version=start,
        )
        await asyncio.to_thread(work_path.mkdir, mode=0o700, exist_ok=True)
        job_path = self._files.job_path(job.id, job.epoch)
        await asyncio.to_thread(job_file.write, job_path)
        return job_path

    async def _start_version(self, job: JobRow) -> StartVersion | None:
        if job.start_version is None:
            return None
        version = await self._registry.get_version(*job.start_version)
        return StartVersion(name=version.model, path=self._settings.artifacts_dir / version.digest)

    async def _settle(self, job: JobRow, attempt: Attempt, outcome: Outcome) -> None:
        match outcome:
            case events.Published():
                if await asyncio.to_thread(self._files.is_published, outcome.digest, job.id):
                    await self._endings.succeed(job, outcome)
                    await attempt.gone()
                    await self._endings.clean_up(job)
                    return
                crash = Crash(
                    reason="TRAINER_CRASHED", message="The trainer announced an adapter that is not there."
                )
            case events.Failed():
                await attempt.gone()
                await self._endings.fail(job, outcome.reason, outcome.message)
                return
            case events.Cancelled():
                crash = Crash(reason="TRAINER_CRASHED", message="The trainer was stopped from outside.")
            case events.Paused():
                crash = Crash(reason="TRAINER_CRASHED", message="The trainer was paused from outside.")
            case NotStarted():
                await self._endings.put_back(job)
                return
            case Crash():
                crash = outcome
        await attempt.gone()
        await self._endings.stopped(job, crash)

    async def _put_back(self, job: JobRow) -> None:
        try:
            await self._endings.put_back(job)
        except (Conflict, NotFound):
            await self._endings.clean_up_ended(job)
        except HotloraError as error:
            _log.warning("job stays for the next start to rescue", job=job.id, message=error.message)

    async def _tidy_up(self) -> None:
        """Once, before the first claim: rescue and sweep."""
        while True:
            try:
                await self._rescue()
                await self._sweep()
                return
            except (Unavailable, Exhausted, OSError) as error:
                _log.warning("the job runner cannot begin yet", error=str(error))
                await asyncio.sleep(self._limits.retry_seconds)

    async def _rescue_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(self._limits.rescue_seconds)
            with _contained("no rescue this time"):
                await self._rescue()
                await self._sweep_work()

    async def _rescue(self) -> None:
        """Take jobs from owners that are gone, ourselves included where an attempt broke off."""
        async with self._claims:
            owned = await self._registry.owned_jobs()
            lost = [job for job in owned if self._is_lost(job)]
        for job in lost:
            _log.warning("the owner of a job is gone", job=job.id, owner=job.owner)
            mark = await asyncio.to_thread(ProcessMark.read, self._files.mark_path(job.id))
            if mark is not None:
                mark.kill_group()
                await mark.gone(self._limits.exit_seconds)
            try:
                await self._take_over(job)
            except (Conflict, NotFound):
                continue
            except asyncio.CancelledError:
                # It may have come between the end of the job and the end of its files.
                await self._endings.clean_up_ended(job)
                raise

    async def _take_over(self, job: JobRow) -> None:
        """Back to the queue. A service that died before the job got anywhere may have died of it, which
        counts as a crash: otherwise such a job would end one service after the other."""
        if job.owner == self._owner_name or await self._endings.got_somewhere(job):
            await self._endings.put_back(job)
            return
        message = "The service died while the job ran, before the attempt kept a checkpoint."
        await self._endings.stopped(job, Crash(reason="SERVICE_DIED", message=message))

    def _is_lost(self, job: JobRow) -> bool:
        if job.owner == self._owner_name:
            return job.id not in self._running
        return self._owners.gone(job)

    async def _sweep_work(self) -> None:
        """Remove checkpoints of jobs that were cancelled while they had no owner."""
        present = await asyncio.to_thread(self._files.present_work)
        unfinished = await self._registry.unfinished_job_ids()
        for path in await asyncio.to_thread(self._files.sweep_work, present, unfinished):
            _log.info("swept", path=str(path))

    async def _sweep(self) -> None:
        """Remove files that nobody needs. First what there is, then what is needed: new files stay."""
        present = await asyncio.to_thread(self._files.present)
        owned = await self._registry.owned_jobs()
        removed = await asyncio.to_thread(
            self._files.sweep,
            present,
            unfinished=await self._registry.unfinished_job_ids(),
            registered=await self._registry.registered_digests(),
            anyone_trains=bool(owned),
        )
        for path in removed:
            _log.info("swept", path=str(path))
        self._owners.forget({self._owner_name, *(job.owner for job in owned if job.owner)})


@contextmanager
def _contained(what: str) -> Iterator[None]:
    """One round of a loop that goes on whatever the round meets; the log says that, after `what`."""
    try:
        yield
    except (HotloraError, OSError) as error:
        _log.warning(what, error=str(error))
    except Exception:
        _log.exception(what)


def _private_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX))
    if len(str(directory)) > _MAX_SOCKET_DIR:
        directory.rmdir()
        directory = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir="/tmp"))
    return directory
