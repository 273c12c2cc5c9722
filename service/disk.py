"""Says no before the disk is full: half-written files and a stuck database cost more than a refused call."""

import shutil
from pathlib import Path

from service.errors import Exhausted


class Disk:
    """The disk below one directory."""

    def __init__(self, *, directory: Path, min_free_bytes: int) -> None:
        self._directory = directory
        self._min_free_bytes = min_free_bytes
        """0 means that any rest is enough."""

    def refuse_if_full(self, besides_bytes: int = 0) -> None:
        """Raise Exhausted (DISK_NEARLY_FULL) when less than `min_free_bytes` are left, or would be after
        `besides_bytes` more."""
        if shutil.disk_usage(self._directory).free < self._min_free_bytes + besides_bytes:
            raise disk_full()


def disk_full() -> Exhausted:
    """What a caller is told when there is no room."""
    return Exhausted(
        "DISK_NEARLY_FULL", "the service's disk is nearly full; delete datasets or adapters, then try again"
    )
