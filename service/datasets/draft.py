"""A training file while it arrives, and the first rows of one that is there.

Blocking: meant for a worker thread. Turns bytes into a checked file and its figures; knows neither ids nor
the registry. What is written is canonical: each row in one form, on the line where it was uploaded.
"""

import hashlib
import os
from collections.abc import Generator, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import BinaryIO

from trainer.records import (
    KEPT_LIMITS,
    AnyRecord,
    Kind,
    Limits,
    LineProblem,
    PreferenceRecord,
    Record,
    RecordParser,
    TextRecord,
    Turn,
    canonical_line,
    iter_records,
    kind_of,
)
from trainer.rendering import Renderer, RenderingError, Segment, TrainingRow

_READ_BYTES = 64 * 1024


class Draft:
    """A file being received: `receive` until it ends, `finish`, then `measure` until it says so.

    One call at a time, from any thread. Touches nothing before the first byte.
    """

    def __init__(self, *, path: Path, limits: Limits, renderer: Renderer) -> None:
        self._path = path
        self._limits = limits
        self._parser = RecordParser(limits)
        self._renderer = renderer
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._written_lines = 0
        self._unmeasured: Generator[AnyRecord | LineProblem, None, None] | None = None
        self.problems: list[LineProblem] = []
        """What is wrong so far, in the file's order. A file with a problem is never published."""
        self.size_bytes = 0
        """Of what was received."""
        self.kind: Kind | None = None
        """What the rows are; None before the first."""
        self.rows = 0
        self.tokens = 0
        self.longest_row_tokens = 0

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
        self._take(self._parser.feed(piece))

    def finish(self) -> None:
        """Check what the file's end brings; without problems, put the whole file on disk. Raises OSError."""
        self._take(self._parser.finish())
        if not self.problems:
            file = self._opened()
            file.flush()
            os.fsync(file.fileno())
            file.close()
            self._unmeasured = _records(self._path)

    def measure(self, *, seconds: float) -> bool:
        """Render rows for so long; True when all of them are counted. Raises OSError.

        Rendering is by far the slowest part, so it comes when nothing else can be wrong any more.
        """
        assert self._unmeasured is not None, "measure comes after finish"
        until = monotonic() + seconds
        for record in self._unmeasured:
            assert not isinstance(record, LineProblem), "the file was accepted"
            self._count(record)
            if len(self.problems) >= self._limits.max_problems:
                break
            if monotonic() > until:
                return False
        return True

    def discard(self) -> None:
        """Leave nothing behind. Harmless after the file was moved away."""
        if self._unmeasured is not None:
            self._unmeasured.close()
        if self._file is not None:
            with suppress(OSError):  # on a full disk, closing fails as writing did
                self._file.close()
            self._path.unlink(missing_ok=True)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._file = self._path.open("xb")
        return self._file

    def _take(self, found: Iterable[AnyRecord | LineProblem]) -> None:
        for one in found:
            if isinstance(one, LineProblem):
                self.problems.append(one)
            elif not self.problems:
                self.kind = kind_of(one)
                # Empty lines keep the numbers of the uploaded file, which every later message speaks of.
                self._opened().write(b"\n" * (one.line - 1 - self._written_lines) + canonical_line(one))
                self._written_lines = one.line

    def _count(self, record: AnyRecord) -> None:
        try:
            rows = rendered(record, self._renderer)
        except RenderingError as error:
            self.problems.append(_unrenderable(record, error))
            return
        self.rows += 1
        self.tokens += sum(len(row.token_ids) for row in rows)
        self.longest_row_tokens = max(self.longest_row_tokens, *(len(row.token_ids) for row in rows))


def rendered(record: AnyRecord, renderer: Renderer) -> tuple[TrainingRow, ...]:
    """The row of a record; of a preference, the wanted answer's and the other's. Raises RenderingError."""
    match record:
        case Record():
            return (renderer.training_row(record.messages),)
        case TextRecord():
            return (renderer.text_row(record.text),)
        case PreferenceRecord():
            pair = renderer.preference_pair(record.prompt, record.chosen, record.rejected)
            return (pair.chosen, pair.rejected)


@dataclass(frozen=True, kw_only=True)
class PreviewRow:
    """One row as the base model will see it."""

    line: int
    """Line in the file, from 1."""
    messages: tuple[Turn, ...]
    """The conversation; of a preference, with the wanted answer. Empty for a text."""
    segments: tuple[Segment, ...]
    """The rendered text in order, cut where training begins or ends."""
    rejected_segments: tuple[Segment, ...]
    """Of a preference, the same with the other answer; else empty."""
    tokens: int
    trained_tokens: int
    """Tokens of it that carry loss."""


def preview(path: Path, *, max_rows: int, max_characters: int, renderer: Renderer) -> list[PreviewRow]:
    """The first rows of an accepted file: at most `max_rows`, and after the first only while their texts fit
    `max_characters`.

    Raises OSError, and ValueError where the file is not what was accepted.
    """
    rows: list[PreviewRow] = []
    characters = 0
    with closing(_records(path)) as records:
        for record in records:
            if isinstance(record, LineProblem):
                raise ValueError(f"line {record.line}: {record.reason}")
            row = _preview_row(record, renderer)
            characters += sum(len(turn.content) for turn in row.messages)
            characters += sum(len(segment.text) for segment in (*row.segments, *row.rejected_segments))
            if rows and characters > max_characters:
                break
            rows.append(row)
            if len(rows) == max_rows:
                break
    return rows


def _preview_row(record: AnyRecord, renderer: Renderer) -> PreviewRow:
    row, *other = rendered(record, renderer)
    messages: tuple[Turn, ...] = ()
    if isinstance(record, Record):
        messages = record.messages
    elif isinstance(record, PreferenceRecord):
        messages = (*record.prompt, *record.chosen)
    return PreviewRow(
        line=record.line,
        messages=messages,
        segments=row.segments,
        rejected_segments=other[0].segments if other else (),
        tokens=len(row.token_ids),
        trained_tokens=sum(row.trained),
    )


def _records(path: Path) -> Generator[AnyRecord | LineProblem, None, None]:
    with path.open("rb") as file:
        yield from iter_records(iter(lambda: file.read(_READ_BYTES), b""), KEPT_LIMITS)


def _unrenderable(record: AnyRecord, error: RenderingError) -> LineProblem:
    return LineProblem(
        line=record.line,
        reason=f"the base model's chat template does not accept the row: {error}",
        advice="Change the row to what the template knows, or use another base model.",
    )
