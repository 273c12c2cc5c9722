"""One attempt of one job: a trainer process from the order to fork it to its last word.

Hears the trainer's event lines, records them, passes wishes to end or to pause on, and makes sure that the
process is gone at the end. Decides nothing about the job: it gives an outcome.
"""

import asyncio
import contextlib
import signal
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

import structlog

from service.changes import Changes
from service.errors import Conflict, Exhausted, HotloraError, NotFound, Unavailable
from service.machine import main_memory
from service.registry import JobRow, JobState, ProgressEvent, Registry
from service.registry.states import JOB_OWNED
from service.runner.forkserver import Child, ForkServer
from service.runner.limits import Limits
from trainer import events

_log = structlog.get_logger(__name__)
_LAST_WORDS_SECONDS = 0.3
"""A killed trainer's last lines are still in the socket for this long; then we stop listening."""
_RECORD_TRIES = 5


@dataclass(frozen=True, kw_only=True)
class Crash:
    """The trainer ended, or had to be ended, without a last word."""

    reason: str
    """TRAINER_CRASHED, TRAINER_HUNG, OUT_OF_MEMORY, SERVICE_DIED or INTERNAL."""
    message: str
    is_final: bool = False
    """Whether the same settings would end the same again."""


class NotStarted:
    """The fork server could not be asked; the job is not to blame."""


Outcome = events.Published | events.Failed | events.Cancelled | events.Paused | Crash | NotStarted


class Attempt:
    """Use as a context manager: inside, `outcome` gives the outcome; afterwards the process is gone."""

    def __init__(
        self,
        *,
        job: JobRow,
        job_path: Path,
        mark_path: Path,
        socket_path: Path,
        server: ForkServer,
        registry: Registry,
        changes: Changes,
        limits: Limits,
        memory_kills: Callable[[], int],
    ) -> None:
        """`memory_kills` counts what the kernel has killed for want of memory."""
        self._job = job
        self._job_path = job_path
        self._mark_path = mark_path
        self._socket_path = socket_path
        self._server = server
        self._registry = registry
        self._changes = changes
        self._limits = limits
        self._memory_kills = memory_kills
        self._memory_kills_before = memory_kills()
        self._latest_metrics = job.latest_metrics
        self._child: Child | None = None
        self._listener: asyncio.Server | None = None
        self._writer: StreamWriter | None = None
        self._reader: asyncio.Future[StreamReader | None] = asyncio.get_running_loop().create_future()
        """The connection; None once nobody waits for it any more."""
        self._stopping = False
        self._pausing = False
        self._fenced_off: HotloraError | None = None

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_unix_server(
            self._connected, self._socket_path, limit=events.MAX_LINE_BYTES
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.gone()
        finally:
            if self._listener is not None:
                self._listener.close()
            self._socket_path.unlink(missing_ok=True)
            if self._writer is not None:
                self._writer.close()
                with contextlib.suppress(OSError):
                    await self._writer.wait_closed()

    async def outcome(self) -> Outcome:
        """Start the trainer and hear it to its end. Raises Conflict when another owner took the job over."""
        try:
            self._child = await self._server.start(self._job_path, self._socket_path)
        except OSError as error:
            _log.warning("job could not be handed over", job=self._job.id, error=str(error))
            return NotStarted()
        watcher = asyncio.create_task(self._watch())
        try:
            outcome = await self._listen(self._child)
        except BaseException:
            self._kill()
            raise
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        if self._fenced_off is not None:
            raise self._fenced_off
        return outcome

    async def gone(self) -> None:
        """Wait until the process is gone; kill it if it takes longer than `exit_seconds`."""
        if self._listener is not None:
            self._listener.close()
        mark = None if self._child is None else self._child.mark
        if mark is None or await mark.gone(self._limits.exit_seconds):
            return
        mark.kill_group()
        if not await mark.gone(self._limits.exit_seconds):
            _log.error("a trainer survives SIGKILL", job=self._job.id, pid=mark.pid)

    def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        if self._reader.done():
            writer.close()
            return
        self._writer = writer
        self._reader.set_result(reader)
        if self._pausing:
            writer.write(b"pause\n")
        if self._stopping:
            writer.write(b"cancel\n")

    async def _listen(self, child: Child) -> Outcome:
        reader = await self._connection(child)
        if reader is None:
            if not child.ended.is_set():
                self._kill()
            return self._died(child, "The trainer did not begin")
        await self._remember(child)
        while True:
            try:
                line = await self._next_line(reader)
            except TimeoutError:
                self._kill()
                seconds = self._limits.silence_seconds
                return Crash(
                    reason="TRAINER_HUNG", message=f"The trainer said nothing for {seconds:g} seconds."
                )
            except ValueError as error:
                self._kill()
                return Crash(reason="TRAINER_CRASHED", message=f"The trainer spoke nonsense: {error}.")
            if line is None:
                return await self._ended_silently(child)
            match line:
                case events.Published() | events.Failed() | events.Cancelled() | events.Paused():
                    return line
                case events.Heartbeat():
                    continue
                case _:
                    await self._record(line)

    async def _connection(self, child: Child) -> StreamReader | None:
        ended = asyncio.create_task(child.ended.wait())
        waited_for: set[asyncio.Future[StreamReader | None] | asyncio.Task[bool]] = {ended, self._reader}
        try:
            await asyncio.wait(
                waited_for, timeout=self._limits.connect_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            # A trainer that came and went at once may have left its words in the backlog.
            await asyncio.wait({self._reader}, timeout=_LAST_WORDS_SECONDS)
        finally:
            ended.cancel()
        if not self._reader.done():
            self._reader.set_result(None)
        return self._reader.result()

    async def _remember(self, child: Child) -> None:
        """Leave a mark of the process for a later service, should this one die."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.exit_seconds):
                await child.started.wait()
        if child.mark is not None:
            await asyncio.to_thread(child.mark.write, self._mark_path)

    async def _next_line(self, reader: StreamReader) -> events.TrainerEvent | None:
        """The next event; None at the end, a half line included. Raises TimeoutError, ValueError."""
        try:
            async with asyncio.timeout(self._limits.silence_seconds):
                line = await reader.readline()
        except TimeoutError:
            # After a pause of this whole service the clock is late, and the lines are there all the same.
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                line = await reader.readline()
        except ConnectionError:
            return None
        if not line.endswith(b"\n"):
            return None
        try:
            return events.decode(line)
        except RecursionError:
            raise ValueError("an event line is nested too deep") from None

    async def _ended_silently(self, child: Child) -> Crash:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.exit_seconds):
                await child.ended.wait()
        return self._died(child, "The trainer died")

    def _died(self, child: Child, what: str) -> Crash:
        if child.signal == signal.SIGKILL and self._memory_kills() > self._memory_kills_before:
            return Crash(reason="OUT_OF_MEMORY", message=_out_of_memory(self._latest_metrics), is_final=True)
        return Crash(reason="TRAINER_CRASHED", message=f"{what}: {child.exit_description}.")

    async def _record(self, event: ProgressEvent) -> None:
        """Record an event, with a few tries while the registry is busy or its disk is full."""
        if isinstance(event, events.Metrics):
            self._latest_metrics = event
        for left in reversed(range(_RECORD_TRIES)):
            try:
                await self._registry.append_event(self._job.id, self._job.epoch, event)
                return
            except (Unavailable, Exhausted):
                if not left:
                    raise
                await asyncio.sleep(self._limits.retry_seconds)

    async def _watch(self) -> None:
        """Keep the ownership alive, and pass wishes on."""
        topic = f"job/{self._job.id}"
        last_beat = monotonic()
        while True:
            seen = self._changes.seen(topic)
            try:
                if monotonic() - last_beat >= self._limits.heartbeat_seconds:
                    last_beat = monotonic()
                    await self._registry.heartbeat(self._job.id, self._job.owner or "", self._job.epoch)
                job = await self._registry.get_job(self._job.id)
            except (Conflict, NotFound) as error:
                return self._give_up(error)
            except Exception as error:
                # Whoever stopped watching here would leave the job deaf to every later wish.
                _log.warning("job cannot be looked at", job=self._job.id, error=str(error))
                await asyncio.sleep(self._limits.retry_seconds)
                continue
            if job.epoch != self._job.epoch or job.state not in JOB_OWNED:
                message = f"job {job.id} is {job.state} at epoch {job.epoch}; epoch {self._job.epoch} is over"
                return self._give_up(Conflict("FENCED_OFF", message))
            if job.state == JobState.CANCELLING:
                return await self._stop()
            if job.state == JobState.PAUSING and not self._pausing:
                self._pausing = True
                if self._writer is not None:
                    self._writer.write(b"pause\n")
            await self._changes.wait(topic, seen, self._limits.heartbeat_seconds)

    async def _stop(self) -> None:
        self._stopping = True
        if self._writer is not None:
            self._writer.write(b"cancel\n")
        await asyncio.sleep(self._limits.cancel_grace_seconds)
        self._kill()
        await asyncio.sleep(_LAST_WORDS_SECONDS)
        self._hang_up()

    def _give_up(self, error: HotloraError) -> None:
        self._fenced_off = error
        self._kill()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        elif not self._reader.done():
            self._reader.set_result(None)

    def _kill(self) -> None:
        child = self._child
        if child is None or (child.ended.is_set() and child.mark is None):
            return
        if child.mark is not None:
            child.mark.kill_group()
        elif not child.started.is_set():
            # It took the order and never forked: nothing else will end it.
            self._server.kill()


def _out_of_memory(metrics: events.Metrics | None) -> str:
    all_bytes, _ = main_memory()
    peak = "" if metrics is None else f", of which step {metrics.step} took {_gib(metrics.peak_memory_bytes)}"
    return (
        f"The kernel killed the trainer because memory ran out; {_gib(all_bytes)} are there for "
        f"everything{peak}. Shorter rows, a smaller batch or QLoRA need less; a plan says how much."
    )


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"
