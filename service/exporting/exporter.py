"""A version's files as other programs read them, with a model card, in pieces.

What is published is what PEFT or transformers reads already; only MANIFEST.json stays here, whose canary
holds stretches of training rows. Other files are made first. Knows nothing of the wire.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from service.artifacts import (
    ArtifactCorrupt,
    FileEntry,
    Form,
    Manifest,
    entry_of,
    manifest_fields,
    open_file,
    verify_files,
)
from service.evaluation import Report
from service.exporting.curve import curve_of
from service.exporting.formats import Format, Wanted, refuse_unsuited
from service.exporting.model_card import Lineage, model_card
from service.exporting.models import ModelMaker
from service.registry import Registry, VersionRow
from trainer.curve import CurvePoint
from trainer.events import Evaluation, Metrics

CARD_NAME = "README.md"
_CHUNK_BYTES = 512 * 1024
_EVALUATIONS = 20
"""How many of the newest are looked through for one that succeeded."""


@dataclass(frozen=True, kw_only=True)
class FileBegins:
    """A file of an export; its bytes follow."""

    name: str
    size_bytes: int
    sha256: str


class Exporter:
    """See the module."""

    def __init__(self, *, registry: Registry, artifacts_dir: Path, maker: ModelMaker) -> None:
        self._registry = registry
        self._artifacts_dir = artifacts_dir
        self._maker = maker

    async def pieces(
        self, version: VersionRow, wanted: Wanted | None = None
    ) -> AsyncGenerator[FileBegins | bytes, None]:
        """Each file, then its bytes. Raises ArtifactCorrupt, ArtifactUnreadable, WrongState, and what
        `ModelMaker.made` raises."""
        wanted = wanted or Wanted()
        directory = self._artifacts_dir / version.digest
        manifest = await asyncio.to_thread(_checked, directory, version)
        refuse_unsuited(version, manifest.form, wanted)
        card = await self._card(version, directory, manifest, wanted)
        if not _is_made(manifest, wanted):
            async with aclosing(_files(directory, manifest.files, card)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        self._maker.refuse(version, manifest, wanted)
        async with self._maker.made(version, manifest, wanted) as made:
            entries = await asyncio.to_thread(_entries, made)
            async with aclosing(_files(made, entries, card)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _card(self, version: VersionRow, directory: Path, manifest: Manifest, wanted: Wanted) -> bytes:
        page = await self._registry.evaluations.listing(
            limit=_EVALUATIONS, adapter_id=version.adapter_id, number=version.number
        )
        reports = [row.report for row in page.rows if row.report is not None]
        lineage = Lineage(
            version=version,
            form=manifest.form,
            wanted=wanted,
            base_name=manifest.base_name,
            base_revision=manifest.base_revision,
            manifest=await asyncio.to_thread(manifest_fields, directory),
            curve=await self._curve(version),
            evaluation=Report.decode(reports[0]) if reports else None,
        )
        return model_card(lineage).encode()

    async def _curve(self, version: VersionRow) -> tuple[CurvePoint, ...]:
        if version.job_id is None:
            return ()
        return curve_of(await self._registry.events_of(version.job_id, {Metrics.kind, Evaluation.kind}))


def _is_made(manifest: Manifest, wanted: Wanted) -> bool:
    """Whether there are other files to make than those that were published."""
    is_published = manifest.form is Form.MODEL and wanted.format is not Format.GGUF
    return wanted.is_whole_model and not is_published


async def _files(
    directory: Path, entries: Mapping[str, FileEntry], card: bytes
) -> AsyncGenerator[FileBegins | bytes, None]:
    yield FileBegins(name=CARD_NAME, size_bytes=len(card), sha256=hashlib.sha256(card).hexdigest())
    yield card
    for name, entry in sorted(entries.items()):
        yield FileBegins(name=name, size_bytes=entry.size, sha256=entry.sha256)
        with await asyncio.to_thread(open_file, directory, name) as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                yield chunk


def _entries(directory: Path) -> dict[str, FileEntry]:
    return {path.name: entry_of(path) for path in directory.iterdir()}


def _checked(directory: Path, version: VersionRow) -> Manifest:
    manifest = Manifest.read(directory)
    if manifest.digest != version.digest:
        raise ArtifactCorrupt("MANIFEST.json is not what was published: its SHA-256 differs")
    verify_files(directory, manifest)
    return manifest
