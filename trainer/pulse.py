"""A pulse for work that cannot say by itself that it goes on, such as one call that reads gigabytes.

Standard library only. It beats from a thread of its own, but only while this process computes, reads or
writes: a process that is stuck falls silent, so whoever listens may still take silence for death.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PULSE_SECONDS = 10.0
STILL_BEATS = 60
"""Beats in a row without a sign of work. The kernel may take minutes to force gigabytes to a slow disk, which
counts as nobody's work."""
_IO = Path("/proc/self/io")

Work = tuple[float, int]


def work_done() -> Work:
    """Of this process so far: seconds of computing, to a tenth, and bytes read from and written to disks."""
    moved = 0
    if _IO.exists():
        for line in _IO.read_text().splitlines():
            name, _, count = line.partition(": ")
            moved += int(count) if name in ("read_bytes", "write_bytes") else 0
    return round(time.process_time(), 1), moved


@contextmanager
def pulse(
    beat: Callable[[], None], *, seconds: float = PULSE_SECONDS, work: Callable[[], Work] = work_done
) -> Iterator[None]:
    """Within this context `beat` is called every so many seconds, in another thread."""
    ended = threading.Event()

    def watch() -> None:
        seen, still = work(), 0
        while not ended.wait(seconds):
            now = work()
            still = still + 1 if now == seen else 0
            seen = now
            if still <= STILL_BEATS:
                beat()

    thread = threading.Thread(target=watch, name="pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
