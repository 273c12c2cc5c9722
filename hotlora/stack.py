"""Programs that live and die together: each a child in its own process group, with its log in a file.

Knows nothing of what the programs are. A child ends when its stack is closed, and also when the process that
holds the stack is killed with SIGKILL, because its stdin then ends (`hotlora.lifeline`).
"""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from hotlora import lifeline

GRACE_SECONDS: Final = 30.0
"""How long a program may take to end after SIGTERM; the engine needs some of it to let go of its memory."""
_TAIL_BYTES: Final = 16_384
_TAIL_LINES: Final = 15


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run."""

    title: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    """Put over the environment of this process."""
    log_path: Path
    """Gets stdout and stderr, appended."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A program that ended."""

    program: Program
    exit_code: int
    """Negative: the signal that ended it."""
    last_lines: tuple[str, ...]
    """The end of what it wrote in this run."""


@dataclass(frozen=True, kw_only=True)
class _Running:
    program: Program
    process: asyncio.subprocess.Process
    log_offset: int


class Stack:
    """Starts the programs on entering, ends them on leaving."""

    def __init__(self, programs: Sequence[Program], *, grace_seconds: float = GRACE_SECONDS) -> None:
        self._programs = programs
        self._grace_seconds = grace_seconds
        self._running: list[_Running] = []
        self._hurry = asyncio.Event()

    async def __aenter__(self) -> Self:
        try:
            for program in self._programs:
                self._running.append(await _start(program))
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stop()

    async def first_end(self) -> Ended:
        """Waits until one of the programs ends."""
        waits = {asyncio.create_task(running.process.wait()): running for running in self._running}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        running = waits[done.pop()]
        assert running.process.returncode is not None
        return Ended(
            program=running.program,
            exit_code=running.process.returncode,
            last_lines=_tail(running.program.log_path, running.log_offset),
        )

    def hurry(self) -> None:
        """Ends the programs at once instead of giving them time."""
        self._hurry.set()

    async def _stop(self) -> None:
        for running in self._running:
            with suppress(ProcessLookupError):
                running.process.terminate()
        waiting = asyncio.create_task(self._all_ended())
        hurrying = asyncio.create_task(self._hurry.wait())
        await asyncio.wait(
            {waiting, hurrying}, timeout=self._grace_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        hurrying.cancel()
        for running in self._running:
            # The group also holds what a program started and did not end.
            with suppress(ProcessLookupError):
                os.killpg(running.process.pid, signal.SIGKILL)
        await waiting
        for running in self._running:
            if running.process.stdin is not None:
                running.process.stdin.close()

    async def _all_ended(self) -> bool:
        for running in self._running:
            await running.process.wait()
        return True


async def _start(program: Program) -> _Running:
    program.log_path.parent.mkdir(parents=True, exist_ok=True)
    with program.log_path.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *program.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, **program.environment, lifeline.VARIABLE: "1"},
            # Ctrl-C at the terminal reaches this process only, which then ends the others in order.
            process_group=0,
        )
        return _Running(program=program, process=process, log_offset=log.tell())


def _tail(path: Path, offset: int) -> tuple[str, ...]:
    with path.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(offset, size - _TAIL_BYTES))
        return tuple(log.read().decode(errors="replace").splitlines()[-_TAIL_LINES:])
