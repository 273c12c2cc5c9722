"""Exports: a version's files as other programs read them, with a model card, in pieces.

What is published is what PEFT or transformers reads already; only MANIFEST.json stays here, whose canary
holds stretches of training rows. Knows nothing of the wire.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from service.artifacts import ArtifactCorrupt, Manifest, manifest_fields, open_file, verify_files
from service.evaluation import Report
from service.model_card import Lineage, model_card
from service.registry import Registry, VersionRow

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

    def __init__(self, *, registry: Registry, artifacts_dir: Path) -> None:
        self._registry = registry
        self._artifacts_dir = artifacts_dir

    async def pieces(self, version: VersionRow) -> AsyncGenerator[FileBegins | bytes, None]:
        """Each file, then its bytes. Raises ArtifactCorrupt, ArtifactUnreadable."""
        directory = self._artifacts_dir / version.digest
        manifest = await asyncio.to_thread(_checked, directory, version)
        card = await self._card(version, directory, manifest)
        yield FileBegins(name=CARD_NAME, size_bytes=len(card), sha256=hashlib.sha256(card).hexdigest())
        yield card
        for name, entry in sorted(manifest.files.items()):
            yield FileBegins(name=name, size_bytes=entry.size, sha256=entry.sha256)
            with await asyncio.to_thread(open_file, directory, name) as file:
                while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                    yield chunk

    async def _card(self, version: VersionRow, directory: Path, manifest: Manifest) -> bytes:
        page = await self._registry.evaluations.listing(
            limit=_EVALUATIONS, adapter_id=version.adapter_id, number=version.number
        )
        reports = [row.report for row in page.rows if row.report is not None]
        lineage = Lineage(
            version=version,
            form=manifest.form,
            base_name=manifest.base_name,
            base_revision=manifest.base_revision,
            manifest=await asyncio.to_thread(manifest_fields, directory),
            evaluation=Report.decode(reports[0]) if reports else None,
        )
        return model_card(lineage).encode()


def _checked(directory: Path, version: VersionRow) -> Manifest:
    manifest = Manifest.read(directory)
    if manifest.digest != version.digest:
        raise ArtifactCorrupt("MANIFEST.json is not what was published: its SHA-256 differs")
    verify_files(directory, manifest)
    return manifest
