"""A registry, a runner and the trainer's double, with limits short enough for tests."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from service.changes import Changes
from service.metrics import Metrics
from service.registry import EventRow, JobRow, JobState, Registry, StateChanged
from service.runner import Limits, Runner
from service.settings import Settings
from tests.doubles.trainer import Behaviour, write_artifact
from tests.service.registry_stage import BASE, WAIT_SECONDS, ended, new_job, open_registry, until
from trainer.config import BaseModel, JobFile

LIMITS = Limits(
    cancel_grace_seconds=0.3,
    silence_seconds=WAIT_SECONDS,
    connect_seconds=WAIT_SECONDS,
    exit_seconds=WAIT_SECONDS,
    ready_seconds=WAIT_SECONDS,
    restart_seconds=0.01,
    heartbeat_seconds=0.1,
    owner_gone_seconds=0.5,
    rescue_seconds=0.1,
    poll_seconds=0.1,
    retry_seconds=0.05,
)


@dataclass(kw_only=True)
class Stage:
    """One home."""

    home: Path
    registry: Registry
    changes: Changes
    limits: Limits = LIMITS
    min_free_disk_bytes: int = 0
    max_running_jobs: int = 1
    plans: dict[str, Behaviour] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=Metrics)
    memory_kills: Callable[[], int] = lambda: 0
    """As the kernel counts them."""

    @property
    def settings(self) -> Settings:
        """Of a service in this home."""
        return Settings(
            home=self.home,
            min_free_disk_bytes=self.min_free_disk_bytes,
            max_running_jobs=self.max_running_jobs,
        )

    def plan(self, adapter_id: str = "support", **behaviour: object) -> None:
        """Say how trainers of an adapter behave from now on."""
        self.plans[adapter_id] = Behaviour(**behaviour)  # type: ignore[arg-type]
        plans = {name: asdict(each) for name, each in self.plans.items()}
        beside = self.home / "plan.json.new"
        beside.write_text(json.dumps(plans))
        beside.replace(self.home / "plan.json")

    @property
    def base_model(self) -> BaseModel:
        """What all jobs here adapt."""
        return BaseModel(name=BASE, path=self.home, revision="sha256:0")

    @property
    def other_base(self) -> BaseModel:
        """Another one that jobs may adapt."""
        return BaseModel(name="other", path=self.home / "other", revision="sha256:1")

    @property
    def gate(self) -> Path:
        """What a gated trainer waits for."""
        return self.home / "gate"

    def runner(self) -> Runner:
        """A new runner, not running yet."""
        return Runner(
            registry=self.registry,
            changes=self.changes,
            settings=self.settings,
            base_models=[self.base_model, self.other_base],
            metrics=self.metrics,
            command=(sys.executable, "-m", "tests.doubles.trainer", "--plan", str(self.home / "plan.json")),
            limits=self.limits,
            memory_kills=self.memory_kills,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Runner]:
        """A runner at work; ended in order at the end."""
        runner = self.runner()
        async with in_background(runner.run):
            yield runner

    async def submit(self, adapter_id: str = "support", max_steps: int = 3) -> JobRow:
        """Queue a job."""
        return await self.registry.create_job(new_job(adapter_id=adapter_id, max_steps=max_steps))

    async def run(self, adapter_id: str = "support", max_steps: int = 3) -> JobRow:
        """Queue a job and wait for its end."""
        job = await self.submit(adapter_id, max_steps)
        return await self.ended(job)

    async def ended(self, job: JobRow) -> JobRow:
        """Wait for a job's end."""
        return await ended(self.registry, self.changes, job.id)

    async def until(self, job: JobRow, reached: Callable[[JobRow], bool]) -> JobRow:
        """Wait until a job's row is as wanted."""

        async def is_reached() -> bool:
            return reached(await self.registry.get_job(job.id))

        await until(self.changes, f"job/{job.id}", is_reached)
        return await self.registry.get_job(job.id)

    async def at_step(self, job: JobRow, step: int) -> JobRow:
        """Wait until a job has done a step."""
        return await self.until(
            job, lambda row: row.latest_metrics is not None and row.latest_metrics.step >= step
        )

    async def events(self, job: JobRow) -> list[EventRow]:
        """All that happened."""
        return await self.registry.events_after(job.id, 0)

    async def states(self, job: JobRow) -> list[JobState]:
        """All states that a job was in."""
        return [row.body.state for row in await self.events(job) if isinstance(row.body, StateChanged)]

    async def trainer_pid(self, job: JobRow) -> int:
        """Process that trains a job now."""
        rows = await self.events(job)
        return [row.body.pid for row in rows if row.kind == "loading"][-1]  # type: ignore[union-attr]

    def leave_artifact(self, job: JobRow) -> Path:
        """Publish for a job what nobody will record."""
        work_path = self.settings.work_dir / job.id
        work_path.mkdir(exist_ok=True)
        digest, _ = write_artifact(
            JobFile(
                job_id=job.id,
                attempt=1,
                adapter_id=job.adapter_id,
                base_model=self.base_model,
                dataset_path=self.home,
                dataset_sha256="a" * 64,
                technique=job.technique,
                hyperparameters=job.hyperparameters,
                work_path=work_path,
                artifacts_path=self.settings.artifacts_dir,
            )
        )
        return self.settings.artifacts_dir / digest

    def work(self) -> list[str]:
        """Names of what is left of running jobs."""
        return sorted(path.name for path in self.settings.work_dir.iterdir())

    def artifacts(self) -> list[str]:
        """Names of what is published."""
        return sorted(path.name for path in self.settings.artifacts_dir.iterdir())

    async def check_gone(self) -> None:
        """Wait until the files of ended jobs are gone; a success is told before they are."""

        async def is_gone() -> bool:
            return not set(self.work()) - await self.registry.unfinished_job_ids()

        await until(self.changes, "work", is_gone)

    async def check_ended_once(self, job: JobRow, state: JobState) -> None:
        """The job has one ending, its files fit it, and its events have no gap."""
        rows = await self.events(job)
        assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
        assert (await self.states(job))[-1] == state
        assert (await self.registry.get_job(job.id)).end_time is not None
        assert job.id not in self.work()
        versions = (await self.registry.list_versions(job.adapter_id)).rows
        mine = [version.digest for version in versions if version.job_id == job.id]
        assert len(mine) == (state == JobState.SUCCEEDED)
        manifests = [
            json.loads(path.read_bytes()) for path in self.settings.artifacts_dir.glob("*/MANIFEST.json")
        ]
        assert sum(manifest["job_id"] == job.id for manifest in manifests) == len(mine)
        assert set(mine) <= set(self.artifacts())


@asynccontextmanager
async def in_background(work: Callable[[], Coroutine[object, object, None]]) -> AsyncIterator[None]:
    """Run `work` beside the body; cancel it at the end; let its failure be seen."""
    task = asyncio.create_task(work())
    try:
        yield
    finally:
        if not task.done():
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def staged(
    home: Path,
    *,
    limits: Limits = LIMITS,
    min_free_disk_bytes: int = 0,
    max_running_jobs: int = 1,
    ids: Callable[[], str] | None = None,
) -> AsyncIterator[Stage]:
    """A home with a registry."""
    changes = Changes()
    async with open_registry(home, changes=changes, ids=ids) as registry:
        stage = Stage(
            home=home,
            registry=registry,
            changes=changes,
            limits=limits,
            min_free_disk_bytes=min_free_disk_bytes,
            max_running_jobs=max_running_jobs,
        )
        stage.settings.make_directories()
        if not (home / "plan.json").exists():
            stage.plan()
        yield stage
