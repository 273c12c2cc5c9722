"""What every container of rows gives: rows not yet understood, and what is wrong with it. And JSON Lines.

A container is fed the file's bytes in chunks of any size; what it answers depends on the bytes alone.
"""

from collections.abc import Iterator
from typing import Literal, Protocol

from trainer.records.lines import parse_line
from trainer.records.rows import Limits, LineProblem, RawRow, RowError
from trainer.records.splitting import Line, LineSplitter

JSON_SPACE = b" \t\r\n"
LONG_ROW_ADVICE = "Shorten the texts of the row, or split it."


class Container(Protocol):
    """A file that holds rows. `feed` and `finish` do their work as they are iterated over."""

    unit: Literal["line", "row"]
    """What `line` counts."""

    @property
    def line(self) -> int:
        """The line or row that is being read, from 1."""

    def feed(self, chunk: bytes) -> Iterator[RawRow | LineProblem]:
        """The rows and problems that this chunk completes, in order."""

    def finish(self) -> Iterator[RawRow | LineProblem]:
        """What the end of the file brings."""

    def close(self) -> None:
        """Let go of what it holds."""


class JsonLines:
    """One JSON object a line."""

    unit: Literal["line", "row"] = "line"

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lines = LineSplitter(limits)

    @property
    def line(self) -> int:
        """See Container."""
        return self._lines.lines + 1

    def feed(self, chunk: bytes) -> Iterator[RawRow | LineProblem]:
        """See Container."""
        for line in self._lines.feed(chunk):
            yield from self._rows(line)

    def finish(self) -> Iterator[RawRow | LineProblem]:
        """See Container."""
        for line in self._lines.finish():
            yield from self._rows(line)

    def close(self) -> None:
        """See Container."""

    def _rows(self, line: Line) -> Iterator[RawRow | LineProblem]:
        problem = line_problem(line, self._limits)
        if problem is not None:
            yield problem
        elif line.content.strip(JSON_SPACE):
            try:
                value = parse_line(line.content, self._limits, ended=line.is_ended)
            except RowError as refusal:
                yield LineProblem(line=line.number, reason=refusal.reason, advice=refusal.advice)
            else:
                yield RawRow(line=line.number, value=value)


def line_problem(line: Line, limits: Limits) -> LineProblem | None:
    """What is wrong with a line before anybody looks into it."""
    if line.number > limits.max_lines:
        reason = f"the file has more than {limits.max_lines:,} lines"
        return LineProblem(line=line.number, reason=reason, advice="Split it.", is_of_file=True)
    if line.is_overlong:
        reason = f"the line is longer than {limits.max_line_bytes:,} bytes"
        return LineProblem(line=line.number, reason=reason, advice=LONG_ROW_ADVICE)
    return None
