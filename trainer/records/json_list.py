"""Rows in one JSON list, taken apart element by element as the file arrives.

Memory is bounded by one element. Each element is then read as a line of JSON Lines would be.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from trainer.records.containers import JSON_SPACE, LONG_ROW_ADVICE
from trainer.records.lines import parse_line
from trainer.records.rows import Limits, LineProblem, RawRow, RowError

_OUTSIDE = re.compile(rb'["\[\]{},]')
_INSIDE_TEXT = re.compile(rb'["\\]')


class JsonList:
    """See the module; a `Container`. Counts rows, as a list need not have lines."""

    unit: Literal["line", "row"] = "row"

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._element = bytearray()
        self._overlong = False
        self._begun = self._ended = False  # whether the list's own brackets were seen
        self._depth = 0  # of brackets inside the element
        self._in_text = self._escaped = False
        self._rows = 0

    @property
    def line(self) -> int:
        """See Container."""
        return self._rows + 1

    def feed(self, chunk: bytes) -> Iterator[RawRow | LineProblem]:
        """See Container."""
        position = 0
        while position < len(chunk):
            if self._ended:
                if chunk[position:].strip(JSON_SPACE):
                    yield self._of_file("something stands behind the end of the list", "Remove it.")
                return
            end = self._next_mark(chunk, position)
            if end < 0:
                yield from self._extend(chunk[position:])
                return
            mark = chunk[end : end + 1]
            closes = not self._in_text and self._depth == 0 and mark in b",]" and self._begun
            if closes:
                yield from self._extend(chunk[position:end])
                yield from self._end_element(is_last=mark == b"]")
            elif not self._begun:
                self._begun = True
            else:
                yield from self._extend(chunk[position : end + 1])
                self._step(mark)
                if self._depth > self._limits.max_depth:
                    yield self._too_deep()
                    return
            position = end + 1

    def finish(self) -> Iterator[RawRow | LineProblem]:
        """See Container."""
        if self._ended:
            return
        for found in self._end_element(is_last=True, is_cut=True):
            yield found if isinstance(found, RawRow) else replace(found, is_of_file=True)
            if isinstance(found, LineProblem):
                return
        yield self._of_file("the list has no end: the file is cut off", "Upload the file again, whole.")

    def close(self) -> None:
        """See Container."""

    def _next_mark(self, chunk: bytes, position: int) -> int:
        """Where the next byte stands that may change what comes behind it; below 0: not in this chunk."""
        if self._escaped:
            self._escaped = False
            position += 1
        found = (_INSIDE_TEXT if self._in_text else _OUTSIDE).search(chunk, position)
        return found.start() if found else -1

    def _step(self, mark: bytes) -> None:
        if self._in_text:
            self._escaped = mark == b"\\"
            self._in_text = mark == b"\\"
        elif mark == b'"':
            self._in_text = True
        elif mark in b"[{":
            self._depth += 1
        elif mark in b"]}":
            self._depth = max(0, self._depth - 1)

    def _extend(self, part: bytes) -> Iterator[LineProblem]:
        if self._overlong:
            return
        self._element += part
        if len(self._element) > self._limits.max_line_bytes:
            self._overlong = True
            self._element.clear()
            reason = f"the row is longer than {self._limits.max_line_bytes:,} bytes"
            yield LineProblem(line=self._rows + 1, reason=reason, advice=LONG_ROW_ADVICE, unit="row")

    def _end_element(self, *, is_last: bool, is_cut: bool = False) -> Iterator[RawRow | LineProblem]:
        content, overlong = bytes(self._element).strip(JSON_SPACE), self._overlong
        self._element.clear()
        self._overlong, self._depth, self._in_text, self._escaped = False, 0, False, False
        self._ended = is_last
        if is_last and not content and not overlong and (self._rows == 0 or is_cut):
            return
        self._rows += 1
        if overlong:
            return
        try:
            yield RawRow(line=self._rows, value=parse_line(content, self._limits, ended=not is_cut))
        except RowError as refusal:
            reason, advice = refusal.reason, refusal.advice
            reason = reason.replace("the last line", "the last row")
            if not content:
                reason, advice = "no row stands behind the last comma", "Remove the comma."
            yield LineProblem(line=self._rows, reason=reason, advice=advice, unit="row")

    def _too_deep(self) -> LineProblem:
        """What ends the reading: nothing good can come of such a list, and each bracket costs time."""
        try:
            parse_line(bytes(self._element), self._limits, ended=True)
        except RowError as refusal:
            return self._of_file(refusal.reason, refusal.advice)
        return self._of_file(f"nested deeper than {self._limits.max_depth} levels", "Rows are flat.")

    def _of_file(self, reason: str, advice: str) -> LineProblem:
        return LineProblem(line=self._rows + 1, reason=reason, advice=advice, unit="row", is_of_file=True)
