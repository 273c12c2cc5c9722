"""Files of jobs: work directories, artifacts that a job left, and the sweep of what nobody needs.

Everything here blocks on disk; callers hand it to a thread. Artifacts that a version stands on are never
touched.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from service.artifacts import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    NOT_AS_PUBLISHED,
    Manifest,
    verify_files,
)
from service.errors import DataLoss

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MARK_NAME = "trainer.json"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A whole artifact that is not registered yet."""

    digest: str
    rank: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class JobFiles:
    """Where the files of jobs are."""

    work_dir: Path
    artifacts_dir: Path

    def work_path(self, job_id: str) -> Path:
        """Checkpoints and half-written files of one job."""
        return self.work_dir / job_id

    def job_path(self, job_id: str, epoch: int) -> Path:
        """The job file of one attempt; no other attempt has the same."""
        return self.work_path(job_id) / f"job-{epoch}.json"

    def mark_path(self, job_id: str) -> Path:
        """Which process trains the job."""
        return self.work_path(job_id) / _MARK_NAME

    def remove_work(self, job_id: str) -> None:
        """Remove the work directory, if there is one."""
        _remove(self.work_path(job_id))

    def is_published(self, digest: str, job_id: str) -> bool:
        """Whether that job made an artifact of that name, with the manifest that gives it the name. Raises
        OSError."""
        if not _DIGEST.fullmatch(digest):
            return False
        content = _manifest_bytes(self.artifacts_dir / digest)
        return hashlib.sha256(content).hexdigest() == digest and _job_id(content) == job_id

    def find_published(self, job_id: str, registered: Collection[str]) -> Artifact | None:
        """A whole artifact that the job left before anyone heard of it: the service died in between. Raises
        OSError, Unavailable."""
        for path in self._unregistered(registered):
            if not _is_by(path, job_id):
                continue
            try:
                manifest = Manifest.read(path)
                verify_files(path, manifest)
            except DataLoss:
                continue
            if manifest.digest == path.name:
                size_bytes = sum(file.stat().st_size for file in path.iterdir())
                return Artifact(digest=path.name, rank=manifest.rank, size_bytes=size_bytes)
        return None

    def remove_artifacts_of(self, job_id: str, registered: Collection[str]) -> None:
        """Remove what the job published in a race, and nobody registered."""
        for path in self._unregistered(registered):
            if _is_by(path, job_id):
                _remove(path)

    def present(self) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """Work directories and artifacts that exist now. Look here first and into the registry after that."""
        return self.present_work(), tuple(self.artifacts_dir.iterdir())

    def present_work(self) -> tuple[Path, ...]:
        """Work directories that exist now; as with `present`, look here first."""
        return tuple(self.work_dir.iterdir())

    def sweep_work(self, present: Collection[Path], unfinished: Collection[str]) -> list[Path]:
        """Remove of `present` what no unfinished job needs; return what was removed."""
        doomed = [path for path in present if path.name not in unfinished]
        for path in doomed:
            _remove(path)
        return doomed

    def sweep(
        self,
        present: tuple[tuple[Path, ...], tuple[Path, ...]],
        *,
        unfinished: Collection[str],
        registered: Collection[str],
        anyone_trains: bool,
    ) -> list[Path]:
        """Remove of `present` what no unfinished job and no version needs; return what was removed.

        Artifacts without a readable manifest are somebody's half-written ones while `anyone_trains`.
        """
        work, artifacts = present
        doomed: list[Path] = []
        for path in artifacts:
            if path.name in registered:
                continue
            try:
                job_id = _job_id(_manifest_bytes(path))
            except OSError:
                continue  # whose it is cannot be told now; the next start looks again
            if (not anyone_trains) if job_id is None else (job_id not in unfinished):
                doomed.append(path)
        for path in doomed:
            _remove(path)
        return [*self.sweep_work(work, unfinished), *doomed]

    def _unregistered(self, registered: Collection[str]) -> list[Path]:
        return [
            path
            for path in self.artifacts_dir.iterdir()
            if _DIGEST.fullmatch(path.name) and path.name not in registered
        ]


def _manifest_bytes(directory: Path) -> bytes:
    """The manifest, or nothing where there is none that a trainer could have written. Raises OSError."""
    try:
        descriptor = os.open(directory / MANIFEST_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(MAX_MANIFEST_BYTES)
    except OSError as error:
        if error.errno in NOT_AS_PUBLISHED:
            return b""
        raise


def _is_by(directory: Path, job_id: str) -> bool:
    """Whether that job published it, as far as can be told now."""
    try:
        return _job_id(_manifest_bytes(directory)) == job_id
    except OSError:
        return False


def _job_id(manifest: bytes) -> str | None:
    try:
        fields = json.loads(manifest)
    except (ValueError, RecursionError):
        return None
    job_id = fields.get("job_id") if isinstance(fields, dict) else None
    return job_id if isinstance(job_id, str) else None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
