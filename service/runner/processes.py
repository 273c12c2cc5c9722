"""Names processes so that no other one is ever killed in their stead: by id and start time.

Linux only (`/proc`); a process id alone may by now belong to another program.
"""

import asyncio
import contextlib
import json
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class ProcessMark:
    """A process, for as long as it lives."""

    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat: clock ticks from boot to its start."""
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> "ProcessMark | None":
        """Mark a living process; None if there is none (any more)."""
        start_ticks = _start_ticks(pid)
        if start_ticks is None:
            return None
        return cls(pid=pid, start_ticks=start_ticks, boot_id=_BOOT_ID.read_text().strip())

    def write(self, path: Path) -> None:
        """Keep the mark for a later service."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "ProcessMark | None":
        """What `write` wrote; None if there is nothing, or nothing whole: then nothing may be killed."""
        try:
            fields = json.loads(path.read_text())
            return cls(
                pid=int(fields["pid"]),
                start_ticks=int(fields["start_ticks"]),
                boot_id=str(fields["boot_id"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        return ProcessMark.of(self.pid) == self

    def kill_group(self) -> None:
        """SIGKILL the process group that it leads; nothing if the process is gone."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def gone(self, timeout_seconds: float) -> bool:
        """Wait for its end; False if it still runs after `timeout_seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                # It may be nobody's child here, so there is no event to wait for.
                while self.alive():  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_SECONDS)
        return not self.alive()


def _start_ticks(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command's name stands in parentheses and may itself hold spaces and parentheses.
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])
