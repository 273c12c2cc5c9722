"""Runs a command so that nothing of it outlives the service: `python leash.py COMMAND [ARGUMENT...]`.

The command gets a session and process group of its own; its process id is the first line on standard output.
It gets a directory of its own for temporary files (TMPDIR), which is removed when it has ended.
Whatever ends first, the whole group ends:
- the command itself: the leash ends with its exit status (128 + signal when it was killed);
- standard input (a pipe from the service) reaches its end, as it does when the service dies of anything,
  SIGKILL included: the group is killed at once;
- the leash gets SIGTERM: the group gets SIGTERM, and after `GRACE_SECONDS` SIGKILL.

Standard library only, one thread, no polling. Knows nothing of engines.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from tempfile import TemporaryDirectory, gettempdir
from time import monotonic

GRACE_SECONDS = 5.0
"""Enough for vLLM to remove its shared memory, which nobody else removes."""
PREFIX = "hotlora-engine-"
"""How the names of the directories for temporary files begin."""
_LONGEST_PLACE = 45
"""Characters of the directory that they are in: sockets of 36 more lie within, and Linux takes 107 in all."""


def _end_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def main(command: list[str]) -> int:
    """Run `command` on the leash; return its exit status as a shell would."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    place = gettempdir() if len(gettempdir()) <= _LONGEST_PLACE else "/tmp"  # noqa: S108
    # What dies of SIGKILL removes nothing itself, and may write a last file while we do.
    with TemporaryDirectory(prefix=PREFIX, dir=place, ignore_cleanup_errors=True) as directory:
        return _run(command, {**os.environ, "TMPDIR": directory}, woken)


def _run(command: list[str], environment: dict[str, str], woken: int) -> int:
    child = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
    )
    try:
        os.write(1, f"{child.pid}\n".encode())
        _wait(child, woken)
    finally:
        _end_group(child.pid, signal.SIGKILL)
    status = child.wait()
    return status if status >= 0 else 128 - status


def _wait(child: "subprocess.Popen[bytes]", woken: int) -> None:
    """Return when the group should be killed."""
    deadline: float | None = None
    with selectors.DefaultSelector() as selector:
        selector.register(woken, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        while child.poll() is None:
            timeout = None if deadline is None else deadline - monotonic()
            if timeout is not None and timeout <= 0:
                return
            for key, _ in selector.select(timeout):
                received = os.read(key.fd, 64)
                if key.fd == 0 and not received:
                    return
                if key.fd == woken and deadline is None and {signal.SIGTERM, signal.SIGINT} & set(received):
                    _end_group(child.pid, signal.SIGTERM)
                    deadline = monotonic() + GRACE_SECONDS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
