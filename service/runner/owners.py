"""Who owns a running job, and whether that owner is still there.

An owner is one run of one service. It holds a lock on a file of its own for as long as it lives: the kernel
drops the lock at its death, whatever it died of, and no clock is involved. Owners on other machines (a shared
database) have no lock file here; they count as gone when their heartbeat stands still for long, measured by
our own monotonic clock.
"""

import fcntl
import os
from collections.abc import Collection
from pathlib import Path
from time import monotonic

from service.registry.rows import JobRow


class Owner:
    """This service's ownership. `release` it at the end."""

    def __init__(self, directory: Path, name: str) -> None:
        """Take the lock of `name`. Raises BlockingIOError if a living owner has that name."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.name = name
        self._path = directory / f"{name}.lock"
        self._descriptor = _lock(self._path)

    def release(self) -> None:
        """Give the lock up and remove its file."""
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
        """Remove the files of dead owners that no job in `living` (names of owners) needs any more."""
        for path in self._directory.glob("*.lock"):
            if path.stem in living:
                continue
            try:
                descriptor = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
