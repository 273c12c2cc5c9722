"""Deletes the files of deleted adapters, once no engine can still read them.

vLLM evicts adapters and reads their directories again whenever it likes, also after an unload; a missing
directory kills it. So a directory goes only when the engine is of a later generation than the last one that
was told of it. That is known without writing it down: only a supervised engine's files are ever deleted,
and no supervised engine outlives the service that started it. Files of an attached engine are never
deleted.
"""

import asyncio
import shutil
from collections.abc import Collection
from pathlib import Path

import structlog

from service.registry import Registry, VersionRow, VersionState

_log = structlog.get_logger(__name__)

_DOOMED_PREFIX = ".deleting-"
_LIVING = frozenset(VersionState)


class Disposal:
    """Remembers what the engine was told of, and deletes what may go."""

    def __init__(self, *, registry: Registry, artifacts_dir: Path) -> None:
        self._registry = registry
        self._artifacts_dir = artifacts_dir
        self._told: dict[str, int] = {}
        self._gone: set[tuple[str, int]] = set()
        self._stuck: set[str] = set()
        """Digests whose files could not be deleted, which was said."""

    def told(self, digest: str, generation: int) -> None:
        """The engine of `generation` may know the directory of `digest` from now on."""
        self._told[digest] = generation

    async def collect(self, generation: int) -> None:
        """Delete what the engine of `generation`, and so no engine at all, was told of. What cannot be
        deleted is said once and tried again at each call."""
        deleted = await self._registry.deleted_versions()
        doomed = [row for row in deleted if (row.adapter_id, row.number) not in self._gone]
        if not doomed:
            return
        needed = await self._needed_digests(deleted)
        for row in doomed:
            if row.digest in needed or self._told.get(row.digest, 0) >= generation:
                continue
            try:
                await asyncio.to_thread(_delete, self._artifacts_dir, row.digest)
            except OSError as error:
                if row.digest not in self._stuck:
                    _log.warning("could not delete files", digest=row.digest, error=str(error))
                    self._stuck.add(row.digest)
                continue
            self._gone.add((row.adapter_id, row.number))

    async def _needed_digests(self, deleted: Collection[VersionRow]) -> set[str]:
        """Digests that a version of a living adapter stands on as well."""
        gone = {(row.adapter_id, row.number) for row in deleted}
        rows = await self._registry.all_versions(_LIVING)
        return {row.digest for row in rows if (row.adapter_id, row.number) not in gone}


def _delete(artifacts_dir: Path, digest: str) -> None:
    """Rename, then remove: a crash between leaves nothing that looks like an artifact, and the next call
    removes it. Raises OSError."""
    directory, doomed = artifacts_dir / digest, artifacts_dir / f"{_DOOMED_PREFIX}{digest}"
    if doomed.exists():
        shutil.rmtree(doomed)
    if directory.is_dir():
        directory.rename(doomed)
        shutil.rmtree(doomed)
        _log.info("deleted the files of a deleted adapter", digest=digest)
