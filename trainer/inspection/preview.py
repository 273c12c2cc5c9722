"""Rows as the base model sees them, with what is trained marked."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from trainer.records import (
    AnyRecord,
    LineProblem,
    PreferenceRecord,
    Record,
    TextRecord,
    Turn,
    iter_file,
)
from trainer.rendering import Renderer, Segment, TrainingRow


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
    with closing(iter_file(path)) as records:
        for record in records:
            if isinstance(record, LineProblem):
                raise ValueError(f"line {record.line}: {record.reason}")
            row = preview_row(record, renderer)
            characters += sum(len(turn.content) for turn in row.messages)
            characters += sum(len(segment.text) for segment in (*row.segments, *row.rejected_segments))
            if rows and characters > max_characters:
                break
            rows.append(row)
            if len(rows) == max_rows:
                break
    return rows


def preview_row(record: AnyRecord, renderer: Renderer) -> PreviewRow:
    """A row to show. Raises RenderingError."""
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
