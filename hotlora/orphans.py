"""Ends what a killed child left behind: its own children, adopted by this process. Acts on Linux only.

A service that is killed with SIGKILL cannot end its engine. The kernel gives the orphans of a process to its
nearest ancestor that asked for them.
"""

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36
_ROUND_SECONDS: Final = 0.05
_INTERRUPTING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def adopt() -> None:
    """From now on orphaned descendants become children of this process."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end(*, grace_seconds: float) -> None:
    """Ends every child of this process: SIGTERM, and SIGKILL to those that are there after the grace.

    Call it from the main thread when no child is left that should live. What a child leaves behind in turn is
    ended too. Signals that would interrupt it are ignored meanwhile: it takes little more than the grace.
    """
    if sys.platform != "linux":
        return
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in _INTERRUPTING}
    try:
        _end_children(grace_seconds)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _end_children(grace_seconds: float) -> None:
    gives_up_at = time.monotonic() + grace_seconds
    asked: set[int] = set()
    while children := _children():
        overdue = time.monotonic() > gives_up_at
        for pid in children:
            with suppress(ProcessLookupError):
                if overdue or pid not in asked:
                    os.kill(pid, signal.SIGKILL if overdue else signal.SIGTERM)
            asked.add(pid)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(_ROUND_SECONDS)


def _children() -> list[int]:
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found.extend(int(pid) for pid in path.read_text().split())
    return found
