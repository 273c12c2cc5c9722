"""What a run says and what it is told: event lines out, the wish to stop or to pause in.

A run that is asked to stop ends by itself at its next check; where that takes too long (one forward pass of
a large model), the channel ends the process. Publication and cancellation exclude each other: whichever
comes first wins. A run that is asked to pause ends after the step it is in, however long that takes. It does
not know what the run does.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainer.events import (
    Cancelled,
    Failed,
    Heartbeat,
    Paused,
    Published,
    Stage,
    TrainerEvent,
    Working,
    encode,
)
from trainer.pulse import PULSE_SECONDS, Work, pulse, work_done

HEARTBEAT_SECONDS = 10.0
CANCEL_GRACE_SECONDS = 2.5
"""From the wish to stop until the process is ended. The API promises that cancelling takes 5 seconds, and
whoever asked may use force after 3."""
CANCELLED_EXIT_CODE = 3
PAUSED_EXIT_CODE = 4

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class CancellationError(Exception):
    """The run was asked to stop."""


class PauseError(Exception):
    """The run was asked to pause, and has saved where it stands."""

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step
        """Optimizer steps done."""


class Channel:
    """Carries the events of one run. `write` takes one whole line; a clock gives seconds since the epoch; the
    others are those of `trainer.pulse`."""

    def __init__(
        self,
        write: Callable[[bytes], None],
        clock: Callable[[], float] = time.time,
        *,
        pulse_seconds: float = PULSE_SECONDS,
        work: Callable[[], Work] = work_done,
    ) -> None:
        self.clock = clock
        self._pulse_seconds = pulse_seconds
        self._work = work
        self._write = write
        self._lock = threading.Lock()
        self._stop_wished = False
        self._pause_wished = False
        self._publishing = False
        self._ended = False
        self._last_line_time = clock()

    def send(self, event: TrainerEvent) -> None:
        """Write one event. After a last one (Published, Failed, Cancelled, Paused) nothing is written."""
        with self._lock:
            self._send(event)

    def check(self) -> None:
        """Raise CancellationError if the run was asked to stop; say that it lives, if it was silent for
        long."""
        if self._stop_wished:
            raise CancellationError
        now = self.clock()
        if abs(now - self._last_line_time) >= HEARTBEAT_SECONDS:
            self.send(Heartbeat(time=now))

    @contextmanager
    def working_on(self, stage: Stage) -> Iterator[None]:
        """Within this context, where `check` may not be called for long, say what is being done and that it
        goes on. It does not end the run for a wish to stop."""
        told = False

        def beat() -> None:
            nonlocal told
            now = self.clock()
            self.send(Heartbeat(time=now) if told else Working(time=now, stage=stage))
            told = True

        with pulse(beat, seconds=self._pulse_seconds, work=self._work):
            yield

    def begin_publication(self) -> None:
        """From here on the run can no longer be stopped. Raises CancellationError if it already was."""
        with self._lock:
            if self._stop_wished:
                raise CancellationError
            self._publishing = True

    def ask_to_stop(self) -> None:
        """Ask from any thread; the process ends within `CANCEL_GRACE_SECONDS` unless it is publishing."""
        with self._lock:
            if self._stop_wished or self._publishing:
                return
            self._stop_wished = True
        timer = threading.Timer(CANCEL_GRACE_SECONDS, self._end_process)
        timer.daemon = True
        timer.start()

    def ask_to_pause(self) -> None:
        """Ask from any thread; the run pauses after its present step, unless that was its last one."""
        self._pause_wished = True

    @property
    def pause_is_wished(self) -> bool:
        """Whether the run is to save where it stands and to raise PauseError."""
        return self._pause_wished

    def _send(self, event: TrainerEvent) -> None:
        if self._ended:
            return
        self._ended = isinstance(event, Published | Failed | Cancelled | Paused)
        try:
            self._write(encode(event))
        except ConnectionError:
            os._exit(1)  # nobody hears this run any more, and nobody would stop it
        self._last_line_time = self.clock()

    def _end_process(self) -> None:
        with self._lock:
            if not self._ended:
                self._send(Cancelled(time=self.clock()))
                os._exit(CANCELLED_EXIT_CODE)


def block_stop_signals() -> None:
    """Keep SIGTERM and SIGINT for `watch_signals`; call it before any other thread is started."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)


def watch_signals(channel: Channel) -> None:
    """Take SIGTERM and SIGINT as the wish to stop; a second one ends the process at once."""

    def watch() -> None:
        # Waited for in a thread: a handler would only run when the main thread's present kernel returns.
        signal.sigwait(_STOP_SIGNALS)
        channel.ask_to_stop()
        signal.sigwait(_STOP_SIGNALS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="signals", daemon=True).start()


def watch_socket(channel: Channel, connection: socket.socket) -> None:
    """Take the lines `cancel` and `pause` as wishes; when the other side is gone, die at once."""

    def watch() -> None:
        with connection.makefile("rb") as lines:
            for line in lines:
                if line == b"cancel\n":
                    channel.ask_to_stop()
                elif line == b"pause\n":
                    channel.ask_to_pause()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="socket", daemon=True).start()


def watch_lifeline(descriptor: int) -> None:
    """Die at once when the pipe behind `descriptor` ends: whoever held its other end is gone."""

    def watch() -> None:
        while os.read(descriptor, 1):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
