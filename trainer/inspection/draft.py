"""A file of training rows while it arrives: checked, brought into its canonical form, counted and judged.

Blocking: meant for a worker thread. What is written has each row in one form, on the line where it stood in
the file that came, so that whatever is said of it later can be found there. It knows neither ids nor the
registry.
"""

import hashlib
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import BinaryIO

from trainer.config import Task
from trainer.inspection.labels import Labels
from trainer.inspection.preview import PreviewRow, preview_row, rendered
from trainer.inspection.report import Report, Tally
from trainer.records import (
    DEFAULT_LIMITS,
    AnyRecord,
    Kind,
    Limits,
    LineProblem,
    Reading,
    Record,
    RecordParser,
    TextRecord,
    canonical_line,
    iter_file,
    kind_of,
)
from trainer.records.rows import RowError
from trainer.rendering import Renderer, RenderingError

_PREVIEW_ROWS = 3
_PREVIEW_CHARACTERS = 100_000


class BadRows(StrEnum):
    """What becomes of a file with rows that are not accepted."""

    REFUSE = "refuse"
    DROP = "drop"
    """They are left out and reported."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked of a file."""

    reading: Reading = field(default_factory=Reading)
    bad_rows: BadRows = BadRows.REFUSE
    task: Task | None = None
    """What the rows teach; None where nobody said."""


class Draft:
    """`receive` until the file ends, `finish`, then `work` until it says that all is done.

    One call at a time, from any thread. Touches nothing before the first row. Without a renderer no tokens
    are counted, and rows that a template would refuse are not found.
    """

    def __init__(
        self,
        *,
        path: Path,
        renderer: Renderer | None,
        context_length: int,
        wish: Wish,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        drops = wish.bad_rows is BadRows.DROP
        self._told_problems = limits.max_problems
        self._path = path
        self._renderer = renderer
        self._context_length = context_length
        self._wish = wish
        # Where bad rows are left out, no number of them ends the reading.
        self._parser = RecordParser(
            replace(limits, max_problems=limits.max_lines) if drops else limits, wish.reading
        )
        self._labels = Labels()
        self._tally = Tally()
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._written_lines = 0
        self._steps: Generator[None, None, None] | None = None
        self.problems: list[LineProblem] = []
        """What is wrong so far, in the file's order: as many as `Limits.max_problems`."""
        self.is_refused = False
        """Whether the file cannot be published: it has a problem, and that row cannot be left out."""
        self.size_bytes = 0
        """Of what was received."""
        self.kind: Kind | None = None
        """What the rows are; None before the first."""
        self.preview: list[PreviewRow] = []
        """The first rows, as far as they are not too long to look at."""

    @property
    def stopped(self) -> bool:
        """Whether the rest of the file cannot change the verdict."""
        return self._parser.stopped

    @property
    def sha256(self) -> str:
        """Of the bytes received so far, lower-case hexadecimal."""
        return self._digest.hexdigest()

    def receive(self, piece: bytes) -> None:
        """Check the lines that the file's next bytes complete, and write their rows. Raises OSError."""
        self.size_bytes += len(piece)
        self._digest.update(piece)
        for _ in self._take(self._parser.feed(piece)):
            pass

    def finish(self) -> None:
        """Nothing more will come."""
        self._steps = self._finishing()

    def work(self, *, seconds: float) -> bool:
        """Go on for so long; True when the file is on disk and every row counted, or when it is refused.

        Rendering is by far the slowest part, so it comes when nothing else can be wrong any more.
        """
        assert self._steps is not None, "work comes after finish"
        until = monotonic() + seconds
        return all(monotonic() <= until for _ in self._steps)

    def report(self) -> Report:
        """What was found; final once `work` is done."""
        return self._tally.report()

    def discard(self) -> None:
        """Leave nothing behind. Harmless after the file was moved away."""
        self._parser.close()
        if self._steps is not None:
            self._steps.close()
        if self._file is not None:
            with suppress(OSError):  # on a full disk, closing fails as writing did
                self._file.close()
            self._path.unlink(missing_ok=True)

    def _finishing(self) -> Generator[None, None, None]:
        yield from self._take(self._parser.finish())
        if self.is_refused or self._file is None:
            return
        self._file.flush()
        if self._renderer is None:
            for record in self._kept():
                self._count(record)
                yield
        else:
            yield from self._measured(self._renderer)
        if not self.is_refused:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def _take(self, found: Iterable[AnyRecord | LineProblem]) -> Iterator[None]:
        for one in found:
            if isinstance(one, LineProblem):
                self._refuse(one)
            elif not self.is_refused:
                self._accept(one)
            yield

    def _accept(self, record: AnyRecord) -> None:
        self.kind = kind_of(record)
        if self._wish.task is Task.CLASSIFICATION and isinstance(record, Record):
            try:
                self._labels.check(record)
            except RowError as refusal:
                self._refuse(self._problem(record, refusal.reason, refusal.advice))
                return
        # Empty lines keep the numbers of the file that came, which every later message speaks of.
        self._opened().write(b"\n" * (record.line - 1 - self._written_lines) + canonical_line(record))
        self._written_lines = record.line

    def _refuse(self, problem: LineProblem) -> None:
        self._tally.add_problem(problem)
        if len(self.problems) < self._told_problems:
            self.problems.append(problem)
        self.is_refused |= problem.is_of_file or self._wish.bad_rows is BadRows.REFUSE

    def _kept(self) -> Iterator[AnyRecord]:
        for record in iter_file(self._path):
            assert not isinstance(record, LineProblem), "the file was accepted"
            yield record

    def _measured(self, renderer: Renderer) -> Iterator[None]:
        position, line = 0, 1
        for record in self._kept():
            position += record.line - line
            end = position + len(canonical_line(record))
            problem = self._measure(record, renderer)
            if problem is not None:
                self._refuse(problem)
                self._blank(position, end)
            if self.is_refused and len(self.problems) >= self._told_problems:
                return
            position, line = end, record.line + 1
            yield

    def _measure(self, record: AnyRecord, renderer: Renderer) -> LineProblem | None:
        """Count a row; what is wrong with it where it cannot be trained on."""
        try:
            rows = rendered(record, renderer)
        except RenderingError as error:
            return self._problem(
                record,
                f"the base model's chat template does not accept the row: {error}",
                "Change the row to what the template knows, or use another base model.",
            )
        lengths = [len(row.token_ids) for row in rows]
        is_long = max(lengths) > self._context_length
        if is_long and not isinstance(record, TextRecord):
            return self._problem(
                record,
                f"the row has {max(lengths):,} tokens, more than the context "
                f"of {self._context_length:,} that is served",
                "Shorten it, or split the conversation into several rows.",
            )
        self._count(record)
        self._tally.add_tokens(record.line, lengths, sum(sum(row.trained) for row in rows), is_cut=is_long)
        characters = sum(len(segment.text) for row in rows for segment in row.segments)
        if len(self.preview) < _PREVIEW_ROWS and characters <= _PREVIEW_CHARACTERS:
            self.preview.append(preview_row(record, renderer))
        return None

    def _count(self, record: AnyRecord) -> None:
        is_labelled = self._wish.task is Task.CLASSIFICATION and isinstance(record, Record)
        self._tally.add_row(record, is_labelled=is_labelled)

    def _problem(self, record: AnyRecord, reason: str, advice: str) -> LineProblem:
        return LineProblem(line=record.line, reason=reason, advice=advice, unit=self._parser.unit)

    def _blank(self, begin: int, end: int) -> None:
        """Leave an empty line where a row stood that is left out after all."""
        file = self._opened()
        file.seek(begin)
        file.write(b" " * (end - begin - 1))
        file.flush()

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._file = self._path.open("xb")
        return self._file
