"""Rows in a table of text: CSV as RFC 4180 has it, parted by commas, semicolons, tabs or bars, with a header.

Our own parser, line by line, because the bounds must hold while a quoted text is still open.
"""

import re
from collections.abc import Iterator
from typing import Literal

from trainer.records.containers import line_problem
from trainer.records.lines import decoded
from trainer.records.rows import Limits, LineProblem, RawRow, RowError, quoted
from trainer.records.splitting import Line, LineSplitter

DELIMITERS = ",;\t|"
_COLUMN = re.compile(r"[\w .\-]{1,64}")
_QUOTED_REST = re.compile(r'[^"]*+(?:""[^"]*+)*+')
_RAGGED_ADVICE = "Put texts that hold the separator, a quote or a line break in double quotes."


def header_of(line: str) -> tuple[str, list[str]] | None:
    """The separator and the columns of a table's first line; None where it does not look like one."""
    for delimiter in sorted(DELIMITERS, key=line.count, reverse=True):
        columns = [name.strip().removeprefix('"').removesuffix('"') for name in line.split(delimiter)]
        if len(columns) > 1 and all(_COLUMN.fullmatch(name) for name in columns):
            return delimiter, columns
    return None


class Table:
    """See the module; a `Container`. `header` is what `header_of` gave for the first line with text."""

    unit: Literal["line", "row"] = "line"

    def __init__(self, limits: Limits, header: tuple[str, list[str]]) -> None:
        self._limits = limits
        self._delimiter, self._columns = header
        self._lines = LineSplitter(limits)
        self._header_seen = False
        self._fields: list[str] = []
        self._open: list[str] = []  # pieces of a quoted text that goes on
        self._first_line = 0  # of the row that has begun; 0: none has
        self._bytes = 0  # of the row that has begun

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
        if self._open:
            yield self._problem("a quoted text begins here and has no end", "Close it with a double quote.")

    def close(self) -> None:
        """See Container."""

    def _rows(self, line: Line) -> Iterator[RawRow | LineProblem]:
        problem = line_problem(line, self._limits)
        if problem is None:
            problem = self._column_problem() if not self._header_seen else None
        if problem is not None:
            self._forget()
            yield problem
            return
        if not self._open and not line.content.strip():
            return
        self._first_line = self._first_line or line.number
        if not self._header_seen:
            self._header_seen = True
            self._forget()
            return
        try:
            is_whole = self._read(decoded(line.content, line.is_ended), line)
        except RowError as refusal:
            yield self._problem(refusal.reason, refusal.advice)
        else:
            if is_whole:
                yield self._row()

    def _read(self, text: str, line: Line) -> bool:
        """Take a line's fields; whether the row ends with it. Raises RowError."""
        self._bytes += len(line.content) + 1
        if self._bytes > self._limits.max_line_bytes + 1:
            raise RowError(
                f"the row is longer than {self._limits.max_line_bytes:,} bytes",
                "Shorten its texts, or close a quote that was left open.",
            )
        if "\0" in text:
            raise RowError("a NUL byte in the row: binary data", "Save the file as plain text in UTF-8.")
        text = text.removesuffix("\r")
        position = self._close_quote(text, 0) if self._open else 0
        while position is not None and position <= len(text):
            if len(self._fields) > self._limits.max_keys:
                raise RowError(f"more than {self._limits.max_keys} fields in one row", _RAGGED_ADVICE)
            if text.startswith('"', position):
                self._open = [""]
                position = self._close_quote(text, position + 1)
            else:
                end = text.find(self._delimiter, position)
                end = len(text) if end < 0 else end
                self._fields.append(text[position:end])
                position = end + 1
        return position is not None

    def _close_quote(self, text: str, position: int) -> int | None:
        """Where the field behind a quoted text begins; None where the text goes on in the next line."""
        match = _QUOTED_REST.match(text, position)
        assert match is not None, "the pattern matches nothing at all, too"
        self._open.append(match[0])
        end = match.end()
        if end == len(text):
            self._open.append("\n")
            return None
        if end + 1 < len(text) and text[end + 1] != self._delimiter:
            raise RowError(
                f"something stands behind a closing quote at column {end + 2}",
                "Write a double quote inside a quoted text twice.",
            )
        self._fields.append("".join(self._open).replace('""', '"'))
        self._open = []
        return end + 2

    def _row(self) -> RawRow | LineProblem:
        if len(self._fields) != len(self._columns):
            reason = f"the row has {len(self._fields)} fields, but the header {len(self._columns)}"
            return self._problem(reason, _RAGGED_ADVICE)
        row = RawRow(line=self._first_line, value=dict(zip(self._columns, self._fields, strict=True)))
        self._forget()
        return row

    def _column_problem(self) -> LineProblem | None:
        if len(self._columns) > self._limits.max_keys:
            reason = f"more than {self._limits.max_keys} columns"
            return LineProblem(line=1, reason=reason, advice="Keep those of texts.", is_of_file=True)
        double = [name for name in self._columns if self._columns.count(name) > 1]
        if double:
            reason = f"the column {quoted(double[0])} stands twice in the header"
            return LineProblem(line=1, reason=reason, advice="Keep one of them.", is_of_file=True)
        return None

    def _problem(self, reason: str, advice: str) -> LineProblem:
        line = self._first_line
        self._forget()
        return LineProblem(line=line, reason=reason, advice=advice)

    def _forget(self) -> None:
        self._fields, self._open, self._first_line, self._bytes = [], [], 0, 0
