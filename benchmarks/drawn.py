"""Adapters with drawn weights, registered before a service runs: proven and served as trained ones are.

Speed does not depend on what an adapter says, and drawing hundreds takes a minute where training takes hours.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from benchmarks.stack import settings_for
from service.base_model import resolve_base_model
from service.changes import Changes
from service.registry import Registry
from service.registry.versions import Imported
from tests.service.real_adapters import Workshop
from trainer.config import BaseModel

RANK = 8


async def register(home: Path, count: int) -> list[str]:
    """Have so many adapters below `home`, PENDING; gives their exact names."""
    settings = settings_for(home)
    settings.make_directories()
    base, _ = await resolve_base_model(settings.base_model, settings.models_dir)
    published = await asyncio.to_thread(lambda: list(_published(base, count, settings.artifacts_dir)))
    async with Registry.open(settings.database_url, changes=Changes()) as registry:
        rows = [
            await registry.import_version(
                Imported(
                    adapter_id=f"drawn-{number}",
                    base_model=base.name,
                    rank=RANK,
                    digest=digest,
                    size_bytes=sum(
                        file.stat().st_size for file in (settings.artifacts_dir / digest).iterdir()
                    ),
                )
            )
            for number, digest in enumerate(published)
        ]
    return [row.model for row in rows]


def _published(base: BaseModel, count: int, artifacts_dir: Path) -> Iterator[str]:
    """Digests of adapters on all linear layers that all differ, each with a canary of one sequence."""
    for adapter in Workshop(base).draw_many(range(count), rank=RANK):
        yield adapter.publish(artifacts_dir, canary=adapter.canary[:1])
