"""Chunks of bytes to lines. Memory is bounded by one line, whatever the file."""

from collections.abc import Iterator
from dataclasses import dataclass

from trainer.records.rows import Limits


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a file."""

    number: int
    """From 1."""
    content: bytes
    """Without its newline. Of a line above the bound, what was seen until then."""
    is_ended: bool
    """Whether a newline followed."""
    is_overlong: bool
    """Whether it is above the bound; its rest is thrown away, and the next line is the next one."""


class LineSplitter:
    """Cuts at each newline, and an endless line at `Limits.max_line_bytes`.

    `keeps_rest`: a line above the bound is no mistake, but comes in several of at most that length, all of
    the same number; none of them breaks a character, and only the last is ended.
    """

    def __init__(self, limits: Limits, *, keeps_rest: bool = False) -> None:
        self._limits = limits
        self._keeps_rest = keeps_rest
        self._pending = bytearray()  # the line that has begun
        self._overlong = False  # the line that has begun was given out; its rest is thrown away
        self.lines = 0
        """How many lines have ended."""

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """The lines that this chunk completes, in order."""
        begin = 0
        while True:
            end = chunk.find(b"\n", begin)
            part = chunk[begin:] if end < 0 else chunk[begin:end]
            yield from self._extend_and_cut(part) if self._keeps_rest else self._extend(part)
            if end < 0:
                return
            line = self._ended(is_ended=True)
            if line is not None:
                yield line
            begin = end + 1

    def finish(self) -> Iterator[Line]:
        """The last line, where no newline follows it."""
        if self._pending or self._overlong:
            line = self._ended(is_ended=False)
            if line is not None:
                yield line

    def _extend(self, part: bytes) -> Iterator[Line]:
        if self._overlong:
            return
        room = self._limits.max_line_bytes - len(self._pending)
        self._pending += part[: room + 1]
        if len(part) <= room:
            return
        self._overlong = True
        content = bytes(self._pending)
        self._pending.clear()
        yield Line(number=self.lines + 1, content=content, is_ended=False, is_overlong=True)

    def _extend_and_cut(self, part: bytes) -> Iterator[Line]:
        self._pending += part
        while len(self._pending) > self._limits.max_line_bytes:
            end = self._limits.max_line_bytes
            while end > 1 and self._pending[end] & 0xC0 == 0x80:  # within a character of UTF-8
                end -= 1
            content = bytes(self._pending[:end])
            del self._pending[:end]
            yield Line(number=self.lines + 1, content=content, is_ended=False, is_overlong=False)

    def _ended(self, *, is_ended: bool) -> Line | None:
        """The line that ends here, unless it was given out before."""
        self.lines += 1
        content, overlong = bytes(self._pending), self._overlong
        self._pending.clear()
        self._overlong = False
        if overlong:
            return None
        return Line(number=self.lines, content=content, is_ended=is_ended, is_overlong=False)
