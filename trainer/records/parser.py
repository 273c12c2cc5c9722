"""Chunks of bytes to rows and problems, as they arrive, whatever container and shape the rows are in.

It knows the bounds of the file and that its rows are of one kind; the rest is asked of those who know.
"""

import codecs
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Literal

from trainer.records.containers import Container
from trainer.records.gzipped import Gunzip
from trainer.records.rows import (
    DEFAULT_LIMITS,
    KEPT_LIMITS,
    AnyRecord,
    Kind,
    Limits,
    LineProblem,
    RawRow,
    Reading,
    RowError,
    kind_of,
)
from trainer.records.shapes import record_of
from trainer.records.sniffing import GZIP_MAGIC, container_of

MAX_REPORTED_PROBLEMS = 20
_READ_BYTES = 1024 * 1024
_AS_IT_IS = Reading()
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
        super().__init__(f"{first.place}: {first.reason}. {first.advice}{others}")
        self.problems = problems
        """The first 20."""
        self.total = total
        """How many there are; checking stops at `Limits.max_problems`."""


class RecordParser:
    """Checks a file that comes in chunks of any size.

    The answer depends on the bytes alone, not on how they were cut into chunks. After `finish`, and once
    `stopped`, nothing that is fed is looked at. `feed` and `finish` work as they are iterated over; each has
    to be iterated to its end.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS, reading: Reading = _AS_IT_IS) -> None:
        self._limits = limits
        self._reading = reading
        self._begin = bytearray()  # of the file, until its container is known
        self._container: Container | None = None
        self._is_packing_known = False
        self._gunzip: Gunzip | None = None
        self._rows = 0
        self._problems = 0
        self._bytes = 0  # unpacked
        self._stopped = False
        self._first: AnyRecord | None = None  # decides what all rows of the file are

    @property
    def stopped(self) -> bool:
        """Whether the rest of the file no longer matters: it is refused as a whole, or has ended."""
        return self._stopped

    @property
    def unit(self) -> Literal["line", "row"]:
        """What the numbers of rows and problems count."""
        return "line" if self._container is None else self._container.unit

    def close(self) -> None:
        """Let go of what reading holds. Harmless at any time."""
        self._stopped = True
        if self._container is not None:
            self._container.close()

    def feed(self, chunk: bytes) -> Iterator[AnyRecord | LineProblem]:
        """The rows and problems that this chunk completes, in order."""
        if self._stopped:
            return
        if not self._is_packing_known:
            chunk = bytes(self._begin) + chunk
            self._begin.clear()
            if GZIP_MAGIC.startswith(chunk):
                self._begin += chunk
                return
            self._is_packing_known = True
            self._gunzip = Gunzip() if chunk.startswith(GZIP_MAGIC) else None
        if self._gunzip is None:
            yield from self._feed_unpacked(chunk)
            return
        try:
            for piece in self._gunzip.feed(chunk):
                yield from self._feed_unpacked(piece)
                if self._stopped:
                    return
        except RowError as refusal:
            yield self._refuse_file(refusal)

    def finish(self) -> Iterator[AnyRecord | LineProblem]:
        """What the end of the file brings: a last line without a newline, or that the file was empty."""
        if self._stopped:
            return
        try:
            if self._gunzip is not None:
                self._gunzip.finish()
            container = self._container
            if container is None:
                container = self._opened(is_whole=True)
                assert container is not None, "a whole file has a container"
                yield from self._understood(container, container.feed(self._without_mark()))
            if not self._stopped:
                yield from self._understood(container, container.finish())
        except RowError as refusal:
            yield self._refuse_file(refusal)
        if not self._rows and not self._problems and not self._stopped:
            yield LineProblem(
                line=1, reason="the file has no rows", advice="Write one row a line.", is_of_file=True
            )
        self.close()

    def _feed_unpacked(self, chunk: bytes) -> Iterator[AnyRecord | LineProblem]:
        room = self._limits.max_file_bytes - self._bytes
        self._bytes += len(chunk)
        usable = chunk[:room] if len(chunk) > room else chunk
        container = self._container
        if container is None:
            self._begin += usable
            try:
                container = self._opened(is_whole=False)
            except RowError as refusal:
                yield self._refuse_file(refusal)
                return
            usable = self._without_mark()
        if container is not None:
            self._begin.clear()
            yield from self._understood(container, container.feed(usable))
        if len(chunk) > room and not self._stopped:
            limit = f"the file is larger than {self._limits.max_file_bytes:,} bytes"
            yield self._refuse_file(RowError(limit, "Split it into several datasets."))

    def _opened(self, *, is_whole: bool) -> Container | None:
        """The container, once the file's beginning tells which. Raises RowError."""
        begin = bytes(self._begin)
        if self._gunzip is not None and begin.startswith(GZIP_MAGIC):
            raise RowError("a gzip archive inside a gzip archive", "Pack the file once.")
        self._container = container_of(begin, self._limits, self._reading, is_whole=is_whole)
        return self._container

    def _without_mark(self) -> bytes:
        """The beginning of the file without a byte order mark."""
        return bytes(self._begin).removeprefix(codecs.BOM_UTF8)

    def _understood(
        self, container: Container, found: Iterable[RawRow | LineProblem]
    ) -> Iterator[AnyRecord | LineProblem]:
        for one in found:
            if isinstance(one, LineProblem):
                yield self._counted(one)
            elif self._rows >= self._limits.max_rows:
                reason = f"the file has more than {self._limits.max_rows:,} rows"
                yield self._counted(
                    LineProblem(
                        line=one.line, reason=reason, advice="Split it.", unit=container.unit, is_of_file=True
                    )
                )
            else:
                yield self._record(one, container)
            if self._stopped:
                return

    def _record(self, row: RawRow, container: Container) -> AnyRecord | LineProblem:
        try:
            record = record_of(row.value, row.line, self._reading)
            self._check_kind(record, container)
        except RowError as refusal:
            return self._counted(
                LineProblem(line=row.line, reason=refusal.reason, advice=refusal.advice, unit=container.unit)
            )
        self._rows += 1
        return record

    def _check_kind(self, record: AnyRecord, container: Container) -> None:
        if self._first is None:
            self._first = record
        kind, expected = kind_of(record), kind_of(self._first)
        if kind is not expected:
            raise RowError(
                f"the row is {_A_ROW_OF[kind]}, but {container.unit} {self._first.line} "
                f"is {_A_ROW_OF[expected]}",
                "Put rows of different kinds into files of their own.",
            )

    def _refuse_file(self, refusal: RowError) -> LineProblem:
        return self._counted(
            LineProblem(
                line=1 if self._container is None else self._container.line,
                reason=refusal.reason,
                advice=refusal.advice,
                unit=self.unit,
                is_of_file=True,
            )
        )

    def _counted(self, problem: LineProblem) -> LineProblem:
        self._problems += 1
        if problem.is_of_file or self._problems >= self._limits.max_problems:
            self.close()
        return problem


def iter_records(
    chunks: Iterable[bytes], limits: Limits = DEFAULT_LIMITS, reading: Reading = _AS_IT_IS
) -> Iterator[AnyRecord | LineProblem]:
    """Rows and problems of a file opened in binary mode, or of any pieces of one, in order."""
    parser = RecordParser(limits, reading)
    try:
        for chunk in chunks:
            yield from parser.feed(chunk)
            if parser.stopped:
                break
        yield from parser.finish()
    finally:
        parser.close()


def iter_file(
    path: Path, limits: Limits = KEPT_LIMITS, reading: Reading = _AS_IT_IS
) -> Generator[AnyRecord | LineProblem, None, None]:
    """Rows and problems of a file, in order; only one row is in memory. Raises OSError."""
    with path.open("rb") as file:
        yield from iter_records(iter(lambda: file.read(_READ_BYTES), b""), limits, reading)


def read_file(path: Path, limits: Limits = KEPT_LIMITS, reading: Reading = _AS_IT_IS) -> list[AnyRecord]:
    """Every row of a file. Raises RecordsError when a line is not accepted, and OSError."""
    records: list[AnyRecord] = []
    problems: list[LineProblem] = []
    total = 0
    for found in iter_file(path, limits, reading):
        if not isinstance(found, LineProblem):
            records.append(found)
            continue
        total += 1
        problems = [*problems, found][:MAX_REPORTED_PROBLEMS]
    if total:
        raise RecordsError(tuple(problems), total)
    return records
