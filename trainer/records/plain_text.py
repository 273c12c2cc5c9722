"""A file of plain text: one long document, taken in pieces that end where a paragraph or a line does.

A line above `Limits.max_line_bytes`, as text without line breaks is, ends them where it is cut.
"""

from collections.abc import Iterator
from typing import Literal

from trainer.records.containers import line_problem
from trainer.records.lines import decoded
from trainer.records.rows import Limits, LineProblem, RawRow, RowError
from trainer.records.splitting import Line, LineSplitter

PIECE_CHARACTERS = 64 * 1024
"""A piece ends at the first empty line behind half of this, or at the line that exceeds it. It only bounds
memory: pieces are cut to the model's context when they are trained on."""


class PlainText:
    """See the module; a `Container`. A row's line is that of its first line."""

    unit: Literal["line", "row"] = "line"

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lines = LineSplitter(limits, keeps_rest=True)
        self._piece: list[str] = []
        self._characters = 0
        self._first_line = 0

    @property
    def line(self) -> int:
        """See Container."""
        return self._lines.lines + 1

    def feed(self, chunk: bytes) -> Iterator[RawRow | LineProblem]:
        """See Container."""
        for line in self._lines.feed(chunk):
            yield from self._take(line)

    def finish(self) -> Iterator[RawRow | LineProblem]:
        """See Container."""
        for line in self._lines.finish():
            yield from self._take(line)
        yield from self._end_piece()

    def close(self) -> None:
        """See Container."""

    def _take(self, line: Line) -> Iterator[RawRow | LineProblem]:
        problem = line_problem(line, self._limits)
        if problem is not None:
            yield problem
            return
        try:
            text = decoded(line.content, line.is_ended).removesuffix("\r")
        except RowError as refusal:
            yield LineProblem(line=line.number, reason=refusal.reason, advice=refusal.advice)
            return
        if text.strip():
            self._first_line = self._first_line or line.number
        elif not self._piece:
            return
        self._piece.append(text)
        self._characters += len(text) + 1
        is_full = self._characters > PIECE_CHARACTERS or not line.is_ended
        if is_full or (not text.strip() and self._characters > PIECE_CHARACTERS // 2):
            yield from self._end_piece()

    def _end_piece(self) -> Iterator[RawRow | LineProblem]:
        text = "\n".join(self._piece).rstrip("\n")
        line = self._first_line
        self._piece, self._characters, self._first_line = [], 0, 0
        if text.strip():
            yield RawRow(line=line, value={"text": text})
