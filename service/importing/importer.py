"""Takes the files of an adapter in, has the trainer make an artifact of them, and registers a version.

Everything happens in a directory of its own, which goes whatever becomes of the call; the artifact appears by
one rename.
"""

import asyncio
import json
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import BinaryIO

import structlog

from service.artifacts import Manifest, verify_files
from service.child import ChildFailedError, run
from service.disk import Disk
from service.errors import Exhausted, FieldViolation, HotloraError, InvalidRequest
from service.importing.files import MAX_BYTES, Servable, problems
from service.registry import Imported, Registry, VersionRow
from service.serving import Base, Bases
from trainer.config import BaseModel
from trainer.planning.shape import ShapeError, shape_of_directory

COMMAND = (sys.executable, "-m", "trainer.importing")
IDLE_SECONDS = 30.0
_TRAINER_SECONDS = 900.0
_RETRY_SECONDS = 30.0
_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")

_log = structlog.get_logger(__name__)


class FileName(str):
    """A file of an import begins; its bytes follow."""

    __slots__ = ()


class Importer:
    """See the module. Belongs to one event loop."""

    def __init__(
        self,
        *,
        registry: Registry,
        bases: Bases,
        directory: Path,
        artifacts_dir: Path,
        disk: Disk,
        threads: int = 0,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """`directory` is of imports alone, on the file system of `artifacts_dir`: what an earlier service
        left there is removed. `command` gets directories and options added."""
        self._registry = registry
        self._bases = bases
        self._directory = directory
        self._artifacts_dir = artifacts_dir
        self._disk = disk
        self._threads = threads
        self._command = tuple(command)
        self._running = asyncio.Lock()
        shutil.rmtree(directory, ignore_errors=True)

    async def base(self, adapter_id: str, base_model: str) -> Base:
        """The base that an adapter is imported for: the one that is named, else that of the adapter where it
        is there already. Raises AlreadyExists or InvalidRequest where it cannot be, whatever its files are.
        """
        if wrong := self._bases.unknown(base_model, field="header.base_model"):
            raise InvalidRequest(wrong)
        self._bases.refuse_name(adapter_id)
        name = base_model or await self._registry.base_model_of(adapter_id)
        if self._bases.find(name) is None:
            raise InvalidRequest(self._bases.absent(name, field="header.adapter_id"))
        base = self._bases.meant(name)
        await self._registry.refuse_adapter_id(adapter_id, base.name)
        return base

    async def take(self, adapter_id: str, base: Base, pieces: AsyncIterator[FileName | bytes]) -> VersionRow:
        """Make the next version of the files that come. Raises InvalidRequest, AlreadyExists, Exhausted,
        ChildFailedError."""
        if self._running.locked():
            raise Exhausted(
                "IMPORT_RUNNING", "another import is running; try again later", retry_seconds=_RETRY_SECONDS
            )
        async with self._running:
            self._disk.refuse_if_full()
            place = self._directory / secrets.token_hex(8)
            source, target = place / "source", place / "target"
            await asyncio.to_thread(source.mkdir, parents=True)
            try:
                await _receive(source, pieces)
                wrong = await asyncio.to_thread(_problems, source, base)
                if not wrong:
                    await asyncio.to_thread(target.mkdir)
                    wrong = await self._made(source, target, base.model)
                if wrong:
                    raise InvalidRequest(wrong)
                return await self._published(adapter_id, base, target)
            finally:
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, place, ignore_errors=True))

    async def _made(self, source: Path, target: Path, base: BaseModel) -> list[FieldViolation]:
        """What the trainer finds wrong; nothing once `target` is an artifact."""
        try:
            answer = await run(
                [
                    *self._command,
                    *(str(base.path), str(source), str(target)),
                    *("--name", base.name, "--revision", base.revision),
                    *("--threads", str(self._threads)),
                ],
                seconds=_TRAINER_SECONDS,
            )
            return [FieldViolation(**each) for each in json.loads(answer)["problems"]]
        except (ValueError, TypeError, KeyError) as error:
            raise ChildFailedError(f"the import gave no usable answer: {error!r}") from error

    async def _published(self, adapter_id: str, base: Base, target: Path) -> VersionRow:
        """There is no way back from here: what is in place is registered, even if the caller goes."""
        publishing = asyncio.create_task(self._publish(adapter_id, base, target))
        try:
            return await asyncio.shield(publishing)
        except asyncio.CancelledError:
            await asyncio.wait({publishing})
            raise

    async def _publish(self, adapter_id: str, base: Base, target: Path) -> VersionRow:
        manifest, size_bytes = await asyncio.to_thread(_checked, target)
        published = self._artifacts_dir / manifest.digest
        await asyncio.to_thread(target.rename, published)
        try:
            version = await self._registry.import_version(
                Imported(
                    adapter_id=adapter_id,
                    base_model=base.name,
                    rank=manifest.rank,
                    digest=manifest.digest,
                    size_bytes=size_bytes,
                )
            )
        except HotloraError:
            await asyncio.to_thread(shutil.rmtree, published, ignore_errors=True)
            raise
        _log.info("imported an adapter", model=version.model, digest=version.digest)
        return version


def _problems(source: Path, base: Base) -> list[FieldViolation]:
    try:
        shape = shape_of_directory(base.model.path)
        linears, layers = shape.linears, shape.layers
    except ShapeError:
        linears, layers = (), 0
    return problems(source, Servable(max_rank=base.fleet.max_rank, linears=linears, layers=layers))


def _checked(target: Path) -> tuple[Manifest, int]:
    manifest = Manifest.read(target)
    verify_files(target, manifest)
    return manifest, sum(file.stat().st_size for file in target.iterdir())


async def _receive(source: Path, pieces: AsyncIterator[FileName | bytes]) -> None:
    """Write the files that come. Raises InvalidRequest with every file that is wrong, Exhausted."""
    wrong: list[FieldViolation] = []
    file: BinaryIO | None = None
    name, seen, left_bytes = "", set[str](), 0
    try:
        while (piece := await _next(pieces)) is not None:
            if isinstance(piece, FileName):
                if file is not None:
                    await asyncio.to_thread(file.close)
                    file = None
                name = str(piece)
                if rule := _unwanted(name, seen):
                    wrong.append(FieldViolation(field=name[:200] or "file.name", description=rule))
                    continue
                seen.add(name)
                left_bytes = MAX_BYTES[name]
                file = await asyncio.to_thread((source / name).open, "xb")
            elif not name:
                raise InvalidRequest([FieldViolation(field="file", description="must come before its bytes")])
            elif file is not None:
                left_bytes -= len(piece)
                if left_bytes < 0:
                    rule = f"is larger than {MAX_BYTES[name]} bytes"
                    raise InvalidRequest([*wrong, FieldViolation(field=name, description=rule)])
                await asyncio.to_thread(file.write, piece)
    finally:
        if file is not None:
            await asyncio.to_thread(file.close)
    wrong += [
        FieldViolation(field=missing, description="is missing")
        for missing in MAX_BYTES
        if missing not in seen
    ]
    if wrong:
        raise InvalidRequest(wrong)


async def _next(pieces: AsyncIterator[FileName | bytes]) -> FileName | bytes | None:
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            return await anext(pieces, None)
    except TimeoutError:
        raise stalled() from None


def _unwanted(name: str, seen: set[str]) -> str:
    if name.lower().endswith(_PICKLED):
        return "is pickled, which may run anything when it is read; save the adapter as safetensors"
    if name not in MAX_BYTES:
        return f"is not needed; {' and '.join(MAX_BYTES)} are"
    return "comes twice" if name in seen else ""


def stalled() -> Exhausted:
    """What a caller is told of whom nothing comes."""
    return Exhausted("UPLOAD_STALLED", f"nothing came for {IDLE_SECONDS:g} s; import again")
