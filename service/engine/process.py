"""One engine process on its leash: start it, wait for its end, end it.

Knows how processes are started and ended, not what this one is for.
"""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

from service.engine import leash
from service.engine.command import EngineCommand

END_SECONDS = leash.GRACE_SECONDS + 5.0
"""After this a leash that was told to end is killed itself."""


class EngineProcess(Protocol):
    """A running engine."""

    @property
    def pid(self) -> int:
        """Process id of the engine, which is also its process group."""

    async def wait(self) -> int:
        """Exit status, as a shell would say it."""

    async def end(self) -> None:
        """End the whole group and wait until it is gone; harmless when it is gone already."""


Spawner = Callable[[EngineCommand, Path], Coroutine[Any, Any, EngineProcess]]
"""Starts a command whose output goes to the file."""


class LeashedProcess:
    """An engine whose leash ends it when this service ends, however it ends."""

    def __init__(self, leash_process: Process, pid: int) -> None:
        self._leash = leash_process
        self._pid = pid

    @property
    def pid(self) -> int:
        return self._pid

    async def wait(self) -> int:
        status = await self._leash.wait()
        # The leash ends the group; this is for the case that somebody killed the leash.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        return status

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._leash.terminate()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._leash.wait()
        except TimeoutError:
            self._leash.kill()
        await self.wait()


async def spawn_leashed(command: EngineCommand, log_path: Path) -> EngineProcess:
    """Start `command` on a leash, its output appended to `log_path`. Raises OSError."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", leash.__file__, *command.arguments),
            stdin=PIPE,
            stdout=PIPE,
            stderr=log,
            env=dict(command.environment),
            start_new_session=True,
        )
    if process.stdout is None:
        raise OSError("the leash has no output")
    first_line = await process.stdout.readline()
    if not first_line.strip().isdigit():
        await process.wait()
        raise OSError(f"{command.arguments[0]} could not be started; {log_path} says why")
    return LeashedProcess(process, int(first_line))
