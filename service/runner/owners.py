"""Who owns a running job, and whether that owner is still there.

An owner is one run of one service. It holds a lock on a file of its own for as long as it lives: the kernel
drops the lock at its death, whatever it died of, and no clock is involved. Owners on other machines (a shared
database) have no lock file here; they count as gone when their heartbeat stands still for long, measured by
our own monotonic clock.
"""

import fcntl
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from time import monotonic

from service.registry.rows import JobRow

SCRATCH_PREFIX = "hotlora-"
"""How the name of every scratch directory begins; no other directory is ever removed for a dead owner."""


class Owner:
    """This service's ownership. `release` it at the end."""

    def __init__(self, directory: Path, name: str, scratch: Path) -> None:
        """Take the lock of `name`. Raises BlockingIOError if a living owner has that name.

        `scratch` is a directory of this owner alone; should it die, somebody else removes it.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.name = name
        self._path = directory / f"{name}.lock"
        self._scratch = scratch
        self._descriptor = _lock(self._path)
        os.write(self._descriptor, os.fsencode(scratch))

    def release(self) -> None:
        """Give the lock up; remove its file and the scratch directory."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


class Owners:
    """Judges other owners."""

    def __init__(self, directory: Path, gone_seconds: float) -> None:
        self._directory = directory
        self._gone_seconds = gone_seconds
        self._last_beats: dict[str, tuple[float | None, float]] = {}
        """Per job: its heartbeat as last seen, and when (monotonic) it was first seen so."""

    def gone(self, job: JobRow) -> bool:
        """Whether the owner of a RUNNING or CANCELLING job is gone."""
        path = self._directory / f"{job.owner}.lock"
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return self._silent(job)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def forget(self, living: Collection[str]) -> None:
        """Remove files and scratch directories of dead owners whose names are not in `living`."""
        for path in self._directory.glob("*.lock"):
            if path.stem in living:
                continue
            try:
                descriptor = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove_scratch(Path(os.fsdecode(os.read(descriptor, 4096))))
                path.unlink(missing_ok=True)
            except BlockingIOError:
                pass
            finally:
                os.close(descriptor)

    def _silent(self, job: JobRow) -> bool:
        now = monotonic()
        beat, since = self._last_beats.get(job.id, (None, now))
        if beat != job.heartbeat_time or job.id not in self._last_beats:
            self._last_beats[job.id] = (job.heartbeat_time, now)
            return False
        return now - since >= self._gone_seconds


def _remove_scratch(directory: Path) -> None:
    if directory.name.startswith(SCRATCH_PREFIX) and not directory.is_symlink():
        shutil.rmtree(directory, ignore_errors=True)


def _lock(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise
        # Somebody removed the file between our open and our lock; the lock is on a file without a name.
        os.close(descriptor)
