"""Owns the trainer's fork server: starts it, keeps it running, and hands it jobs.

The fork server is started by exec (this process holds gRPC and threads, and never forks itself) and has torch
imported, so that a job begins in about a second. It ends when its standard input ends, and takes its children
with it; so nothing of it outlives this service. Knows nothing of jobs beyond the path of their file.
"""

import asyncio
import contextlib
import json
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path

import structlog

from service.runner.limits import Limits
from service.runner.processes import ProcessMark
from service.settings import without_settings

_log = structlog.get_logger(__name__)
_MAX_LOG_BYTES = 16 << 20
_MAX_RESTART_SECONDS = 30.0


class Child:
    """One forked trainer, as far as the fork server tells."""

    def __init__(self) -> None:
        self.mark: ProcessMark | None = None
        """Set with `started`; stays None where it ended at once."""
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        """Also set when the fork server died and can tell no more."""
        self.exit_description = "it ended without a word"
        self.signal: int | None = None
        """What ended it, where it was one and the fork server could tell."""

    def begin(self, pid: int) -> None:
        self.mark = ProcessMark.of(pid)
        self.started.set()

    def end(self, exit_description: str, signal: int | None = None) -> None:
        self.exit_description = exit_description
        self.signal = signal
        self.ended.set()


class ForkServer:
    """See the module. `run` must be running for anything to happen."""

    def __init__(self, *, command: Sequence[str], log_path: Path, limits: Limits) -> None:
        self._command = tuple(command)
        self._log_path = log_path
        self._limits = limits
        self._process: Process | None = None
        self._ready = asyncio.Event()
        self._children: dict[str, Child] = {}
        """By path of the job file."""

    async def run(self) -> None:
        """Keep a fork server running until cancelled."""
        pause_seconds = self._limits.restart_seconds
        while True:
            try:
                await self._one_life()
                pause_seconds = self._limits.restart_seconds
            except (OSError, TimeoutError, ValueError) as error:
                _log.error("the fork server did not become ready", error=str(error), log=str(self._log_path))
                pause_seconds = min(2 * pause_seconds, _MAX_RESTART_SECONDS)
            _log.warning("the fork server ended and is started again", seconds=pause_seconds)
            await asyncio.sleep(pause_seconds)

    async def ready(self) -> None:
        """Wait until a job could be forked at once."""
        await self._ready.wait()

    @property
    def pid(self) -> int | None:
        """Of the present fork server."""
        return None if self._process is None else self._process.pid

    async def start(self, job_path: Path, socket_path: Path) -> Child:
        """Fork a trainer for a job file that no one was started for before. Raises ConnectionError."""
        process = self._process
        if process is None or process.stdin is None or not self._ready.is_set():
            raise ConnectionError("the fork server is not running")
        child = self._children[str(job_path)] = Child()
        try:
            process.stdin.write(
                json.dumps({"job": str(job_path), "socket": str(socket_path)}).encode() + b"\n"
            )
            await process.stdin.drain()
        except BaseException:
            self._children.pop(str(job_path), None)
            raise
        return child

    def kill(self) -> None:
        """End a fork server that does not answer; `run` starts another."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _one_life(self) -> None:
        process = await self._spawn()
        self._process = process
        try:
            await self._wait_until_ready(process)
            self._ready.set()
            while message := await self._message(process):
                self._hear(message)
        finally:
            self._ready.clear()
            self._process = None
            await self._end(process)
            for child in self._children.values():
                child.end("the fork server died")
            self._children.clear()

    async def _wait_until_ready(self, process: Process) -> None:
        """Raises ValueError where it says something else, TimeoutError where it says nothing."""
        while True:
            async with asyncio.timeout(self._limits.ready_seconds):
                message = await self._message(process)
            match message:
                case {"ready": True}:
                    return
                case {"loading": True}:
                    continue  # a large base: it is alive, and takes its time
                case _:
                    raise ValueError("its first line was not that it is ready")

    async def _spawn(self) -> Process:
        if self._log_path.exists() and self._log_path.stat().st_size > _MAX_LOG_BYTES:
            self._log_path.replace(self._log_path.with_suffix(".log.1"))
        with self._log_path.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self._command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                env=without_settings(os.environ),
                # Ctrl-C is for the service, which then ends things in order.
                start_new_session=True,
            )

    async def _message(self, process: Process) -> dict[str, object]:
        """The next line; an empty one once the fork server is gone."""
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            return {}
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError(f"{line[:200]!r} is not a message of a fork server")
        return message

    def _hear(self, message: dict[str, object]) -> None:
        match message:
            case {"started": str(job), "pid": int(pid)} if job in self._children:
                self._children[job].begin(pid)
            case {"ended": str(job), "exit_code": exit_code, "signal": int() | None as signal} if (
                job in self._children
            ):
                description = (
                    f"it ended with exit code {exit_code}"
                    if signal is None
                    else f"it was ended by signal {signal}"
                )
                self._children.pop(job).end(description, signal)
            case _:
                _log.warning("the fork server said something unexpected", message=repr(message)[:200])

    async def _end(self, process: Process) -> None:
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(self._limits.exit_seconds):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            # Without this limit, a grandchild that holds the pipes would hold us.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.exit_seconds):
                    await process.wait()
