"""A training file while it arrives, and the first rows of one that is there.

Blocking: meant for a worker thread. Turns bytes into a checked file and its figures; knows neither ids nor
the registry.
"""

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trainer.records import Limits, LineProblem, Record, RecordParser, Turn, iter_records
from trainer.rendering import Renderer, RenderingError, Segment

_READ_BYTES = 64 * 1024


class Draft:
    """A file being received. One call at a time, from any thread."""

    def __init__(self, *, path: Path, limits: Limits, renderer: Renderer) -> None:
        self._path = path
        self._file = path.open("xb")
        self._parser = RecordParser(limits)
        self._renderer = renderer
        self._digest = hashlib.sha256()
        self.problems: list[LineProblem] = []
        """What is wrong so far, in the file's order."""
        self.size_bytes = 0
        self.rows = 0
        self.tokens = 0
        self.longest_row_tokens = 0

    @property
    def stopped(self) -> bool:
        """Whether the rest of the file cannot change the verdict."""
        return self._parser.stopped

    @property
    def sha256(self) -> str:
        """Of the bytes so far, lower-case hexadecimal."""
        return self._digest.hexdigest()

    def receive(self, chunk: bytes) -> None:
        """Write the file's next bytes and check the lines that they complete. Raises OSError."""
        self.size_bytes += len(chunk)
        self._digest.update(chunk)
        self._look_at(self._parser.feed(chunk))
        if not self.problems:  # a file with a problem is never published
            self._file.write(chunk)

    def finish(self) -> None:
        """Check what the file's end brings; without problems, put the whole file on disk. Raises OSError."""
        self._look_at(self._parser.finish())
        if not self.problems:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Leave nothing behind. Harmless after the file was moved away."""
        with suppress(OSError):  # on a full disk, closing fails as writing did
            self._file.close()
        self._path.unlink(missing_ok=True)

    def _look_at(self, found: Iterable[Record | LineProblem]) -> None:
        records = []
        for one in found:
            if isinstance(one, LineProblem):
                self.problems.append(one)
            else:
                records.append(one)
        # Rendering is most of the work, and figures of a refused file interest nobody.
        for record in records if not self.problems else ():
            self._measure(record)

    def _measure(self, record: Record) -> None:
        try:
            row = self._renderer.training_row(record.messages)
        except RenderingError as error:
            self.problems.append(_unrenderable(record, error))
            return
        self.rows += 1
        self.tokens += len(row.token_ids)
        self.longest_row_tokens = max(self.longest_row_tokens, len(row.token_ids))


@dataclass(frozen=True, kw_only=True)
class PreviewRow:
    """One row as the base model will see it."""

    line: int
    """Line in the file, from 1."""
    messages: tuple[Turn, ...]
    segments: tuple[Segment, ...]
    """The rendered text in order, cut where training begins or ends."""
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
    with path.open("rb") as file:
        for record in iter_records(iter(lambda: file.read(_READ_BYTES), b"")):
            if isinstance(record, LineProblem):
                raise ValueError(f"line {record.line}: {record.reason}")
            row = renderer.training_row(record.messages)
            characters += sum(len(turn.content) for turn in record.messages)
            characters += sum(len(segment.text) for segment in row.segments)
            if rows and characters > max_characters:
                break
            rows.append(
                PreviewRow(
                    line=record.line,
                    messages=record.messages,
                    segments=row.segments,
                    tokens=len(row.token_ids),
                    trained_tokens=sum(row.trained),
                )
            )
            if len(rows) == max_rows:
                break
    return rows


def _unrenderable(record: Record, error: RenderingError) -> LineProblem:
    return LineProblem(
        line=record.line,
        reason=f"the base model's chat template does not accept the row: {error}",
        advice="Change the row to what the template knows, or use another base model.",
    )
