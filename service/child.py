"""A child process that is asked for files: bounded in time, in what it says, and in how long it outlives us.

Knows nothing of what the program does.
"""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

_PIECE_BYTES = 64 * 1024
_LAST_WORDS_BYTES = 4_000
_SECRETS = ("HOTLORA_", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""How variables begin that are the service's own."""


class ChildFailedError(Exception):
    """The program did not end well, or not in time. Its last words are for the log alone."""


async def run(command: Sequence[str], *, seconds: float, directory: Path | None = None) -> None:
    """Run a program to its end, in a process group of its own, which is killed where the caller goes first.

    It gets none of our secrets, and may not reach model hubs. Raises ChildFailedError, OSError.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        cwd=directory,
        env=_environment(os.environ),
        start_new_session=True,
    )
    said: deque[bytes] = deque()
    try:
        async with asyncio.timeout(seconds):
            await _listen(process, said)
            status = await process.wait()
    except TimeoutError as error:
        raise ChildFailedError(f"it had not ended after {seconds:g} s: {_last_words(said)}") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if status:
        raise ChildFailedError(f"exit status {status}: {_last_words(said)}")


async def _listen(process: asyncio.subprocess.Process, said: deque[bytes]) -> None:
    """Take all that it says, and keep the end."""
    assert process.stdout is not None
    while piece := await process.stdout.read(_PIECE_BYTES):
        said.append(piece[-_LAST_WORDS_BYTES:])
        while sum(map(len, said)) - len(said[0]) >= _LAST_WORDS_BYTES:
            said.popleft()


def _last_words(said: deque[bytes]) -> str:
    return b"".join(said)[-_LAST_WORDS_BYTES:].decode(errors="replace")


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in ours.items() if not name.startswith(_SECRETS)}
    return {**kept, "HF_HUB_OFFLINE": "1"}
