"""What tests of registry and runner need: rows to begin with, and a wait that ends by itself."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

from service.changes import Changes
from service.registry import DatasetRow, JobRow, NewJob, Registry, Verification, VersionRow, VersionState
from tests.registry_file import registry_url
from trainer import events
from trainer.config import Hyperparameters, Technique
from trainer.records import Kind

BASE = "tiny-base"
WAIT_SECONDS = 20.0
PROOF = Verification(
    tokens=100,
    adapter_difference=0.01,
    effect=0.5,
    trained_effect=0.5,
    noise=0.01,
    tolerance=0.05,
    seconds=1.5,
    time=7.0,
)


def url(home: Path) -> str:
    """Database below a directory."""
    return f"sqlite+aiosqlite:///{home}/registry.db"


def ticking(start: float = 1_000.0) -> Callable[[], float]:
    """A clock that goes on by a second whenever somebody looks at it."""
    ticks: Iterator[int] = count()
    return lambda: start + next(ticks)


def numbered(prefix: str = "id") -> Callable[[], str]:
    """Ids in order."""
    numbers = count(1)
    return lambda: f"{prefix}-{next(numbers)}"


@asynccontextmanager
async def open_registry(
    home: Path,
    *,
    changes: Changes | None = None,
    ids: Callable[[], str] | None = None,
    clock: Callable[[], float] | None = None,
    max_queued_jobs: int = 100,
) -> AsyncIterator[Registry]:
    """A registry below `home` with the dataset `rows`."""
    async with Registry.open(
        registry_url(home),
        changes=changes or Changes(),
        clock=clock or ticking(),
        ids=ids or numbered("job"),
        max_queued_jobs=max_queued_jobs,
    ) as registry:
        if not await registry.dataset_id_taken("rows"):
            await registry.create_dataset(dataset("rows"))
        yield registry


def dataset(dataset_id: str) -> DatasetRow:
    """A dataset of that id."""
    return DatasetRow(
        id=dataset_id,
        display_name="Rows",
        size_bytes=10,
        sha256="a" * 64,
        rows=2,
        tokens=20,
        longest_row_tokens=12,
        create_time=1.0,
        kind=Kind.CONVERSATIONS,
        task=None,
        report=None,
        base_model=BASE,
    )


def new_job(
    *,
    request_id: str = "",
    digest: str = "d",
    adapter_id: str = "support",
    dataset_id: str = "rows",
    base_model: str = BASE,
    max_steps: int = 3,
) -> NewJob:
    """A request for a job."""
    return NewJob(
        request_id=request_id,
        request_digest=digest,
        base_model=base_model,
        dataset_id=dataset_id,
        adapter_id=adapter_id,
        technique=Technique.LORA,
        hyperparameters=Hyperparameters(rank=4, max_steps=max_steps, target_modules=("q_proj", "v_proj")),
    )


def metrics(step: int) -> events.Metrics:
    """Figures of a step."""
    return events.Metrics(
        time=float(step),
        step=step,
        total_steps=10,
        loss=1.0,
        learning_rate=1e-4,
        grad_norm=1.0,
        tokens_per_second=1.0,
        peak_memory_bytes=1,
        eta_seconds=1.0,
        epoch=0.1,
        tokens=1,
    )


def published(digest: str = "f" * 64) -> events.Published:
    """The last line of a good run."""
    return events.Published(time=9.0, step=3, digest=digest, size_bytes=100, rank=4)


async def until(
    changes: Changes,
    topic: str,
    reached: Callable[[], Awaitable[bool]],
    timeout_seconds: float = WAIT_SECONDS,
) -> None:
    """Wait for a condition, looking at each change; fail when it does not come."""
    async with asyncio.timeout(timeout_seconds):
        while True:
            seen = changes.seen(topic)
            if await reached():
                return
            await changes.wait(topic, seen, 0.05)


async def ended(registry: Registry, changes: Changes, job_id: str) -> JobRow:
    """Wait for a job's end and give its row."""

    async def over() -> bool:
        return (await registry.get_job(job_id)).end_time is not None

    await until(changes, f"job/{job_id}", over)
    return await registry.get_job(job_id)


async def made(registry: Registry, adapter_id: str = "support") -> VersionRow:
    """A PENDING version of an adapter."""
    job = await registry.create_job(new_job(adapter_id=adapter_id))
    assert await registry.claim_next_job("me") is not None
    return await registry.succeed_job(job.id, 1, published())


async def active(registry: Registry, adapter_id: str = "support") -> VersionRow:
    """An ACTIVE version of an adapter."""
    loaded = await registry.move_version(await made(registry, adapter_id), VersionState.VERIFYING)
    return await registry.move_version(loaded, VersionState.ACTIVE, verification=PROOF)
