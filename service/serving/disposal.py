"""Deletes the files of deleted adapters, once no engine can still read them.

vLLM evicts adapters and reads their directories again whenever it likes, also after an unload; a missing
directory kills it. So a directory goes only when each engine that was told of it is of a later generation by
now. That is known without writing it down: only where all engines of a base are supervised are files of its
versions ever deleted, and no supervised engine outlives the service that started it. Files of attached
engines are never deleted.
"""

import asyncio
import shutil
from collections.abc import Collection
from pathlib import Path

import structlog

from service.engine.face import Engine
from service.registry import Registry, VersionRow, VersionState
from service.serving.bases import Bases

_log = structlog.get_logger(__name__)

_DOOMED_PREFIX = ".deleting-"
_LIVING = frozenset(VersionState)


class Disposal:
    """Remembers what the engines were told of, and deletes what may go. Their reconcilers share it."""

    def __init__(self, *, registry: Registry, bases: Bases, artifacts_dir: Path) -> None:
        self._registry = registry
        self._bases = bases
        self._artifacts_dir = artifacts_dir
        self._collecting = asyncio.Lock()
        self._told: dict[str, dict[Engine, int]] = {}
        self._gone: set[tuple[str, int]] = set()
        self._stuck: set[str] = set()
        """Digests whose files could not be deleted, which was said."""

    def told(self, digest: str, engine: Engine, generation: int) -> None:
        """`engine`, of `generation`, may know the directory of `digest` from now on."""
        self._told.setdefault(digest, {})[engine] = generation

    async def collect(self) -> None:
        """Delete what no living engine was told of. What cannot be deleted is said once and tried again at
        each call; nothing happens while another call is at it."""
        if not self._collecting.locked():
            async with self._collecting:
                await self._collect()

    async def _collect(self) -> None:
        deleted = await self._registry.deleted_versions()
        doomed = [
            row
            for row in deleted
            if (row.adapter_id, row.number) not in self._gone and self._is_ours(row.base_model)
        ]
        if not doomed:
            return
        needed = await self._needed_digests(deleted)
        for row in doomed:
            if row.digest in needed or self._is_known(row.digest):
                continue
            try:
                await asyncio.to_thread(_delete, self._artifacts_dir, row.digest)
            except OSError as error:
                if row.digest not in self._stuck:
                    _log.warning("could not delete files", digest=row.digest, error=str(error))
                    self._stuck.add(row.digest)
                continue
            self._gone.add((row.adapter_id, row.number))

    def _is_ours(self, base_model: str) -> bool:
        """Whether no engine but our own children can have been told of its versions. Of a base that is not
        there nobody knows: its engines may have been somebody else's, and live on."""
        return base_model in self._bases.names and self._bases.of(base_model).fleet.supervised

    def _is_known(self, digest: str) -> bool:
        """Whether an engine that may live still can read it: a new generation begins after the old one's
        end."""
        told = self._told.get(digest, {})
        return any(generation >= engine.generation for engine, generation in told.items())

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
