"""Which shape a row's JSON object has, and the record that comes of it; and each record's one canonical line.

It does not know lines, files or encodings.
"""

import json

from trainer.records.conversations import turns_of_messages, turns_of_prompt
from trainer.records.preferences import preference_of
from trainer.records.rows import (
    EXAMPLE_ROW,
    AnyRecord,
    PreferenceRecord,
    Record,
    RowError,
    TextRecord,
    Turn,
    checked_text,
    kind_name,
    listed,
    quoted,
)

_SHAPES = (("messages",), ("text",), ("prompt", "chosen", "rejected"), ("prompt", "completion"))
"""The keys of each shape, its telling ones first where shapes share some."""


def record_of(row: object, line: int) -> AnyRecord:
    """The record of a row's JSON value. Raises RowError."""
    if not isinstance(row, dict):
        raise RowError(f"the row is {kind_name(row)}, not an object", f"Write {EXAMPLE_ROW}.")
    shape = _shape(row)
    for key in row:
        if key not in shape:
            raise RowError(
                f"unknown key {quoted(key)} in the row",
                f"Remove it: beside {listed(shape)} nothing would be used.",
            )
    if "messages" in shape:
        return Record(line=line, messages=turns_of_messages(row["messages"]))
    if "text" in shape:
        return TextRecord(line=line, text=checked_text(row["text"], '"text"'))
    if "chosen" in shape:
        return preference_of(row, line)
    return Record(line=line, messages=turns_of_prompt(row))


def canonical_line(record: AnyRecord) -> bytes:
    """The line, with its newline, that gives this record again whatever shape it came in."""
    row: dict[str, object]
    match record:
        case Record():
            row = {"messages": [_message(turn) for turn in record.messages]}
        case TextRecord():
            row = {"text": record.text}
        case PreferenceRecord():
            row = {
                name: [{"role": turn.role, "content": turn.content} for turn in turns]
                for name, turns in (
                    ("prompt", record.prompt),
                    ("chosen", record.chosen),
                    ("rejected", record.rejected),
                )
            }
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _message(turn: Turn) -> dict[str, object]:
    message: dict[str, object] = {"role": turn.role, "content": turn.content}
    return message | {"weight": 0} if turn.role == "assistant" and not turn.trained else message


def _shape(row: dict[str, object]) -> tuple[str, ...]:
    """The keys that this row may have."""
    if "messages" in row and ("prompt" in row or "completion" in row):
        raise RowError(
            'the row has "messages" and also "prompt" or "completion"',
            'Keep either "messages" or the pair "prompt" and "completion".',
        )
    for shape in _SHAPES:
        if any(key in row for key in shape[1:] or shape):
            return shape
    if "prompt" in row:
        return ("prompt", "completion")
    found = ", ".join(quoted(key) for key in list(row)[:5]) or "no keys"
    raise RowError(
        f'the row has neither "messages" nor "prompt" (found: {found})',
        f'Write {EXAMPLE_ROW}, {{"text": "..."}} or {{"prompt": "...", "chosen": "...", "rejected": "..."}}.',
    )
