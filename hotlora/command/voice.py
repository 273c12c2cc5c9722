"""What `up` says while it runs: to a person, or to a program."""

import signal
import time
from collections.abc import Callable, Mapping
from typing import Final

from rich.console import Console
from rich.status import Status

from hotlora.command import output
from hotlora.stack import Ended

_SAY_AGAIN_SECONDS: Final = 10.0
"""Where no line can be written over, a wait is spoken of this often."""


class Voice:
    """Tells a person what happens."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or output.console()
        self._clock = clock
        self._since = clock()
        self._status: Status | None = None
        self._last: tuple[str, float] = ("", 0.0)

    def waiting(self, what: str) -> None:
        """What is awaited, told again and again."""
        now = self._clock()
        words = f"Waiting: {what}, {now - self._since:.0f} s"
        if self._console.is_terminal:
            if self._status is None:
                self._status = self._console.status(words)
                self._status.start()
            self._status.update(words)
        elif what != self._last[0] or now - self._last[1] >= _SAY_AGAIN_SECONDS:
            self._last = (what, now)
            self._console.print(words)

    def ready(self, urls: Mapping[str, str]) -> None:
        self._end_status()
        self._console.print(f"hotlora is up, after {self._clock() - self._since:.0f} s.", style="bold")
        for name, url in urls.items():
            self._console.print(f"  {name:<8} {url}", soft_wrap=True)
        self._console.print("Ctrl-C ends everything.")

    def stopping(self) -> None:
        self._end_status()
        self._console.print("Ending everything; Ctrl-C again to do it at once.")

    def ended(self, ended: Ended) -> None:
        """A program ended that should not have."""
        self._end_status()
        self._console.print(f"The {ended.program.title} ended: {_how(ended)}.", style="red")
        if ended.last_lines:
            self._console.print(f"The end of {ended.program.log_path}:", soft_wrap=True)
            for line in ended.last_lines:
                self._console.print(f"  {output.plain(line)}", soft_wrap=True)

    def _end_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


class JsonVoice(Voice):
    """Tells a program what happens, one JSON object a line."""

    def waiting(self, what: str) -> None:
        if what != self._last[0]:
            self._last = (what, self._clock())
            output.print_json({"waiting": what})

    def ready(self, urls: Mapping[str, str]) -> None:
        output.print_json({"ready": dict(urls)})

    def stopping(self) -> None:
        output.print_json({"stopping": True})

    def ended(self, ended: Ended) -> None:
        output.print_json(
            {
                "ended": ended.program.title,
                "exitCode": ended.exit_code,
                "log": str(ended.program.log_path),
                "lastLines": list(ended.last_lines),
            }
        )


def _how(ended: Ended) -> str:
    if ended.exit_code < 0:
        return f"killed by {signal.Signals(-ended.exit_code).name}"
    return f"exit code {ended.exit_code}"
