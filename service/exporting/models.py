"""Whole models for exports: the base with the adapter in its weights, and llama.cpp's file of that.

Each is made in a directory of its own by a program of its own, which end with the call that wants it.
"""

import asyncio
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from service.artifacts import Form, Manifest
from service.child import ChildFailedError, run
from service.disk import Disk
from service.errors import Exhausted, WrongState
from service.exporting.formats import Format, Wanted
from service.registry import VersionRow
from service.serving import Bases
from service.settings import CONVERTER
from trainer.config import BaseModel

COMMAND = (sys.executable, "-m", "trainer.merging")
_MERGE_SECONDS = 900.0
_CONVERT_SECONDS = 1_800.0
_RETRY_SECONDS = 60.0

_log = structlog.get_logger(__name__)


class ModelMaker:
    """See the module. Belongs to one event loop."""

    def __init__(
        self,
        *,
        bases: Bases,
        artifacts_dir: Path,
        directory: Path,
        disk: Disk,
        llama_cpp_dir: Path | None = None,
        threads: int = 0,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """`directory` is of exports alone: what an earlier service left there is removed. `command` gets
        directories and options added."""
        self._bases = bases
        self._artifacts_dir = artifacts_dir
        self._directory = directory
        self._disk = disk
        self._llama_cpp_dir = llama_cpp_dir
        self._threads = threads
        self._command = tuple(command)
        self._running = asyncio.Lock()
        shutil.rmtree(directory, ignore_errors=True)

    def refuse(self, version: VersionRow, manifest: Manifest, wanted: Wanted) -> None:
        """Raise WrongState for what cannot be made here."""
        if wanted.format is Format.GGUF and self._llama_cpp_dir is None:
            raise WrongState(
                "a GGUF file is made by llama.cpp, which this service was not told of; its operator names a "
                "checkout in HOTLORA_LLAMA_CPP_DIR",
                state="not configured",
                reason="LLAMA_CPP_NOT_CONFIGURED",
            )
        if manifest.form is Form.MODEL:
            return
        ours = {base.name: base.model.revision for base in self._bases}
        if ours.get(manifest.base_name) != manifest.base_revision:
            raise WrongState(
                f"{version.model} was trained on {manifest.base_name} ({manifest.base_revision}), and this "
                f"service has {', '.join(f'{name} ({revision})' for name, revision in ours.items())}",
                state="another base",
                reason="WRONG_BASE",
            )

    @asynccontextmanager
    async def made(self, version: VersionRow, manifest: Manifest, wanted: Wanted) -> AsyncIterator[Path]:
        """A directory with the model's files, which goes at the end.

        Raises WrongState (CONVERSION_FAILED), Exhausted (EXPORT_RUNNING, DISK_NEARLY_FULL),
        ChildFailedError.
        """
        place = self._directory / secrets.token_hex(8)
        try:
            if self._running.locked():
                raise Exhausted(
                    "EXPORT_RUNNING",
                    "another export is being made; try again later",
                    retry_seconds=_RETRY_SECONDS,
                )
            async with self._running:
                model = self._artifacts_dir / version.digest
                if manifest.form is not Form.MODEL:
                    base = self._bases.of(version.base_model).model
                    model = await self._merged(base, model, place / "merged")
                if wanted.format is Format.GGUF:
                    name = f"{version.adapter_id}-{version.number}-{wanted.gguf_type}.gguf"
                    await self._convert(model, place / "gguf" / name, wanted)
                    model = place / "gguf"
            yield model
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, place, ignore_errors=True))

    async def _merged(self, base: BaseModel, adapter: Path, target: Path) -> Path:
        await asyncio.to_thread(self._make_room, base.path, target)
        await run(
            [
                *self._command,
                *(str(base.path), str(adapter), str(target)),
                *("--threads", str(self._threads)),
            ],
            seconds=_MERGE_SECONDS,
        )
        return target

    async def _convert(self, model: Path, target: Path, wanted: Wanted) -> None:
        assert self._llama_cpp_dir is not None, "refused before"
        await asyncio.to_thread(self._make_room, model, target.parent)
        converter = str(self._llama_cpp_dir / CONVERTER)
        try:
            await run(
                [
                    sys.executable,
                    converter,
                    str(model),
                    "--outfile",
                    str(target),
                    "--outtype",
                    wanted.gguf_type,
                ],
                seconds=_CONVERT_SECONDS,
                directory=self._llama_cpp_dir,
            )
        except ChildFailedError as error:
            _log.warning("llama.cpp's converter failed", error=str(error))
            raise _not_converted() from error
        if not await asyncio.to_thread(target.is_file):
            _log.warning("llama.cpp's converter wrote no file", target=str(target))
            raise _not_converted()
        if model.parent == target.parent.parent:
            await asyncio.to_thread(shutil.rmtree, model)

    def _make_room(self, source: Path, target: Path) -> None:
        """Make a directory for about as many bytes as `source` has. Raises Exhausted."""
        size_bytes = sum(file.stat().st_size for file in source.glob("*.safetensors"))
        self._disk.refuse_if_full(besides_bytes=size_bytes)
        target.mkdir(parents=True)


def _not_converted() -> WrongState:
    return WrongState(
        "llama.cpp's converter did not make a file of this model: its checkout may be too old for it, or a "
        "package may be missing; the service's log has what it said",
        state="not converted",
        reason="CONVERSION_FAILED",
    )
