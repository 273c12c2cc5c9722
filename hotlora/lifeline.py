"""Ends a child process when its parent is gone: the parent holds a pipe that is the child's stdin.

Standard library only. A parent killed with SIGKILL can say nothing, but the kernel closes its end of the
pipe, and that is what is waited for. `hotlora up` starts its children so; service and page call `hold`.
"""

import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import BinaryIO, Final

VARIABLE: Final = "HOTLORA_STOP_ON_STDIN_EOF"
"""Set to 1 by a parent whose end must be the child's end too."""


def hold(
    stop: Callable[[], None],
    *,
    environment: Mapping[str, str] = os.environ,
    stdin: BinaryIO | None = None,
) -> threading.Thread | None:
    """Calls `stop` once, from a thread, when stdin ends. Does nothing unless HOTLORA_STOP_ON_STDIN_EOF=1.

    `stop` must be safe to call from another thread: `partial(os.kill, os.getpid(), signal.SIGTERM)` for one.
    """
    if environment.get(VARIABLE) != "1":
        return None
    source = stdin or sys.stdin.buffer
    thread = threading.Thread(target=_wait, args=(source.fileno(), stop), name="lifeline", daemon=True)
    thread.start()
    return thread


def _wait(descriptor: int, stop: Callable[[], None]) -> None:
    # From the descriptor: a thread inside a buffered reader holds a lock that the interpreter's end needs.
    while os.read(descriptor, 4096):
        pass
    stop()
