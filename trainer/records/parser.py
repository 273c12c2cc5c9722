"""Chunks of bytes to rows and problems, line by line, as they arrive.

It knows lines and the bounds of the file; what stands in a line is `lines` and `rows`.
"""

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path

from trainer.records.lines import check_magic, parse_line
from trainer.records.rows import (
    DEFAULT_LIMITS,
    KEPT_LIMITS,
    AnyRecord,
    Kind,
    Limits,
    LineProblem,
    RowError,
    kind_of,
)
from trainer.records.shapes import record_of

MAX_REPORTED_PROBLEMS = 20
_READ_BYTES = 1024 * 1024
_JSON_SPACE = b" \t\r"
_A_ROW_OF = {
    Kind.CONVERSATIONS: "a conversation",
    Kind.TEXT: "a text",
    Kind.PREFERENCES: "a preference",
}


class RecordsError(Exception):
    """A file with lines that are not accepted."""

    def __init__(self, problems: tuple[LineProblem, ...], total: int) -> None:
        first = problems[0]
        others = f" (and {total - 1} more)" if total > 1 else ""
        super().__init__(f"line {first.line}: {first.reason}. {first.advice}{others}")
        self.problems = problems
        """The first 20."""
        self.total = total
        """How many there are; checking stops at `Limits.max_problems`."""


class RecordParser:
    """Checks a JSON Lines file that comes in chunks of any size.

    The answer depends on the bytes alone, not on how they were cut into chunks. After `finish`, and once
    `stopped`, nothing that is fed is looked at.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._pending = bytearray()  # the line that has begun, without a newline
        self._overlong = False  # the line that has begun was refused; its rest is thrown away
        self._lines = 0
        self._rows = 0
        self._problems = 0
        self._bytes = 0
        self._stopped = False
        self._first: AnyRecord | None = None  # decides what all rows of the file are

    @property
    def stopped(self) -> bool:
        """Whether the rest of the file no longer matters: it is refused as a whole, or has ended."""
        return self._stopped

    def feed(self, chunk: bytes) -> list[AnyRecord | LineProblem]:
        """The rows and problems of the lines that this chunk completes, in order."""
        found: list[AnyRecord | LineProblem] = []
        room = self._limits.max_file_bytes - self._bytes
        self._bytes += len(chunk)
        begin = 0
        usable = chunk[:room] if len(chunk) > room else chunk
        while not self._stopped:
            end = usable.find(b"\n", begin)
            self._extend(usable[begin:] if end < 0 else usable[begin:end], found)
            if end < 0:
                break
            self._end_line(found, ended=True)
            begin = end + 1
        if len(chunk) > room and not self._stopped:
            self._stop(
                f"the file is larger than {self._limits.max_file_bytes:,} bytes",
                "Split it into several datasets.",
                found,
            )
        return found

    def finish(self) -> list[AnyRecord | LineProblem]:
        """What the end of the file brings: a last line without a newline, or that the file was empty."""
        found: list[AnyRecord | LineProblem] = []
        if self._stopped:
            return found
        if self._pending or self._overlong:
            self._end_line(found, ended=False)
        if not self._rows and not self._problems:
            self._lines = 0
            self._stop("the file has no rows", "Write one row a line.", found)
        self._stopped = True
        return found

    def _extend(self, part: bytes, found: list[AnyRecord | LineProblem]) -> None:
        if self._overlong:
            return
        room = self._limits.max_line_bytes - len(self._pending)
        self._pending += part[: room + 1]
        if len(part) <= room:
            return
        self._overlong = True
        if self._lines == 0 and self._refuse_by_magic(bytes(self._pending), found):
            return
        reason = f"the line is longer than {self._limits.max_line_bytes:,} bytes"
        self._pending.clear()
        self._add_problem(self._lines + 1, reason, "Shorten the texts of the row, or split it.", found)

    def _end_line(self, found: list[AnyRecord | LineProblem], *, ended: bool) -> None:
        if self._lines >= self._limits.max_lines:
            self._stop(f"the file has more than {self._limits.max_lines:,} lines", "Split it.", found)
            return
        line = bytes(self._pending)
        self._pending.clear()
        if self._overlong:
            self._overlong = False
        elif not (self._lines == 0 and self._refuse_by_magic(line, found)):
            self._check_line(line, found, ended=ended)
        self._lines += 1

    def _check_line(self, line: bytes, found: list[AnyRecord | LineProblem], *, ended: bool) -> None:
        if self._lines == 0:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line.strip(_JSON_SPACE):
            return
        if self._rows >= self._limits.max_rows:
            self._stop(f"the file has more than {self._limits.max_rows:,} rows", "Split it.", found)
            return
        number = self._lines + 1
        try:
            record = record_of(parse_line(line, self._limits, ended=ended), number)
            self._check_kind(record)
        except RowError as refusal:
            self._add_problem(number, refusal.reason, refusal.advice, found)
            return
        self._rows += 1
        found.append(record)

    def _check_kind(self, record: AnyRecord) -> None:
        if self._first is None:
            self._first = record
        kind, expected = kind_of(record), kind_of(self._first)
        if kind is not expected:
            raise RowError(
                f"the row is {_A_ROW_OF[kind]}, but line {self._first.line} is {_A_ROW_OF[expected]}",
                "Put rows of different kinds into files of their own.",
            )

    def _refuse_by_magic(self, start: bytes, found: list[AnyRecord | LineProblem]) -> bool:
        try:
            check_magic(start)
        except RowError as refusal:
            self._stop(refusal.reason, refusal.advice, found)
            return True
        return False

    def _add_problem(self, line: int, reason: str, advice: str, found: list[AnyRecord | LineProblem]) -> None:
        found.append(LineProblem(line=line, reason=reason, advice=advice))
        self._problems += 1
        self._stopped = self._stopped or self._problems >= self._limits.max_problems

    def _stop(self, reason: str, advice: str, found: list[AnyRecord | LineProblem]) -> None:
        self._pending.clear()
        self._stopped = True
        self._add_problem(self._lines + 1, reason, advice, found)


def iter_records(
    lines: Iterable[bytes],
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[AnyRecord | LineProblem]:
    """Rows and problems of a file opened in binary mode, or of any pieces of one, in order."""
    parser = RecordParser(limits)
    for piece in lines:
        yield from parser.feed(piece)
        if parser.stopped:
            break
    yield from parser.finish()


def read_file(path: Path, limits: Limits = KEPT_LIMITS) -> list[AnyRecord]:
    """Every row of a file. Raises RecordsError when a line is not accepted, and OSError."""
    records: list[AnyRecord] = []
    problems: list[LineProblem] = []
    total = 0
    with path.open("rb") as file:
        for found in iter_records(iter(lambda: file.read(_READ_BYTES), b""), limits):
            if not isinstance(found, LineProblem):
                records.append(found)
                continue
            total += 1
            problems = [*problems, found][:MAX_REPORTED_PROBLEMS]
    if total:
        raise RecordsError(tuple(problems), total)
    return records
