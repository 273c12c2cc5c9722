"""A child process that is asked for files or an answer: bounded in time, in what it says, and in how long it
outlives us.

Knows nothing of what the program does.
"""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping, Sequence
from pathlib import Path

from service.settings import without_settings

_PIECE_BYTES = 64 * 1024
_ANSWER_BYTES = 4 << 20
_LAST_WORDS_BYTES = 4_000
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""How variables begin that are the service's own, beside its settings."""


class ChildFailedError(Exception):
    """The program did not end well, or not in time. Its last words are for the log alone."""


async def run(command: Sequence[str], *, seconds: float, directory: Path | None = None) -> bytes:
    """Run a program to its end, in a process group of its own, which is killed where the caller goes first.
    Gives its standard output, of more than 4 MiB the end.

    It gets none of our secrets, and may not reach model hubs. Raises ChildFailedError, OSError.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        cwd=directory,
        env=_environment(os.environ),
        start_new_session=True,
    )
    assert process.stdout is not None and process.stderr is not None, "they were asked for"
    answer, said = bytearray(), bytearray()
    try:
        async with asyncio.timeout(seconds):
            await asyncio.gather(
                keep_end(process.stdout, answer, _ANSWER_BYTES),
                keep_end(process.stderr, said, _LAST_WORDS_BYTES),
            )
            status = await process.wait()
    except TimeoutError as error:
        raise ChildFailedError(f"it had not ended after {seconds:g} s: {_words(said)}") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if status:
        raise ChildFailedError(f"exit status {status}: {_words(said)}")
    return bytes(answer)


async def keep_end(stream: asyncio.StreamReader, kept: bytearray, max_bytes: int) -> None:
    """Read a stream to its end, so that nobody waits to write, and keep its last bytes."""
    while piece := await stream.read(_PIECE_BYTES):
        kept += piece
        del kept[:-max_bytes]


def _words(said: bytearray) -> str:
    return said.decode(errors="replace")


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in without_settings(ours).items() if not name.startswith(_SECRETS)}
    return {**kept, "HF_HUB_OFFLINE": "1"}
