"""Which shape a row's JSON object has, and the record that comes of it; and each record's one canonical line.

It does not know lines, files or encodings.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from trainer.records.conversations import ROW_TOOL_KEYS, refuse_tools, turns_of_messages, turns_of_prompt
from trainer.records.lines import parse_line
from trainer.records.preferences import OPENAI_ANSWERS, openai_preference_of, preference_of
from trainer.records.published import turns_of_alpaca, turns_of_sharegpt
from trainer.records.rows import (
    DEFAULT_LIMITS,
    EXAMPLE_ROW,
    AnyRecord,
    Format,
    PreferenceRecord,
    Reading,
    Record,
    RowError,
    TextRecord,
    Turn,
    checked_text,
    kind_name,
    listed,
    quoted,
)


@dataclass(frozen=True, kw_only=True)
class _Shape:
    telling: tuple[str, ...]
    """A row with one of these keys is of this shape."""
    others: tuple[str, ...] = ()
    """What it may have beside them."""
    ignored: tuple[str, ...] = ()
    """What published sets carry without meaning."""


_OF_TOOLS = (*ROW_TOOL_KEYS, "parallel_tool_calls")
"""Carried by sets of several shapes; where tools are really offered, the row is refused."""

SHAPES: Mapping[Format, _Shape] = {
    Format.CHAT: _Shape(telling=("messages",), ignored=_OF_TOOLS),
    Format.SHAREGPT: _Shape(telling=("conversations",), others=("system",), ignored=("id",)),
    Format.ALPACA: _Shape(telling=("instruction", "output"), others=("input", "system", "history")),
    Format.PREFERENCES: _Shape(telling=("chosen", "rejected"), others=("prompt",), ignored=_OF_TOOLS),
    Format.PROMPT_COMPLETION: _Shape(telling=("completion", "prompt"), ignored=_OF_TOOLS),
    Format.TEXT: _Shape(telling=("text",)),
}
"""In the order in which they are tried."""

_TELLING = tuple((key, format_) for format_, shape in SHAPES.items() for key in shape.telling)

MAPPABLE = frozenset(key for shape in SHAPES.values() for key in (*shape.telling, *shape.others))
"""Keys that a mapping may name."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

_LISTS = ("messages", "conversations", "history", "prompt", "chosen", "rejected")
"""Keys whose list may stand in a table's cell as JSON."""


_SPEAKERS = frozenset(("role", "from"))
"""One of these is in each message, and tells a list of messages from a text that happens to be JSON."""


def record_of(row: object, line: int, reading: Reading) -> AnyRecord:
    """The record of a row's JSON value. Raises RowError."""
    if not isinstance(row, dict):
        raise RowError(f"the row is {kind_name(row)}, not an object", f"Write {EXAMPLE_ROW}.")
    if reading.mapping:
        row = _mapped(row, reading.mapping)
    refuse_tools(row, "the row")
    format_ = reading.format or _format(row)
    is_openai_preference = format_ is Format.PREFERENCES and not row.keys().isdisjoint(OPENAI_ANSWERS)
    if not is_openai_preference:
        _check_keys(row, format_)
    for key in _LISTS:
        if key in row:
            row[key] = _unpacked(row[key])
    match format_:
        case Format.CHAT:
            return Record(line=line, messages=turns_of_messages(row["messages"]))
        case Format.SHAREGPT:
            return Record(line=line, messages=turns_of_sharegpt(row))
        case Format.ALPACA:
            return Record(line=line, messages=turns_of_alpaca(row))
        case Format.PREFERENCES:
            return openai_preference_of(row, line) if is_openai_preference else preference_of(row, line)
        case Format.PROMPT_COMPLETION:
            return Record(line=line, messages=turns_of_prompt(row))
        case Format.TEXT:
            return TextRecord(line=line, text=checked_text(row["text"], '"text"'))


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
    return _ENCODER.encode(row).encode() + b"\n"


def _message(turn: Turn) -> dict[str, object]:
    message: dict[str, object] = {"role": turn.role, "content": turn.content}
    return message | {"weight": 0} if turn.role == "assistant" and not turn.trained else message


def _mapped(row: dict[str, object], mapping: Mapping[str, str]) -> dict[str, object]:
    for column in sorted(mapping.values()):
        if column not in row:
            raise RowError(
                f"the row has no {quoted(column)}, which the mapping names (found: {_found(row)})",
                "Name columns that the rows have.",
            )
    return {key: row[column] for key, column in mapping.items()}


def _format(row: dict[str, object]) -> Format:
    if "messages" in row and ("prompt" in row or "completion" in row):
        raise RowError(
            'the row has "messages" and also "prompt" or "completion"',
            'Keep either "messages" or the pair "prompt" and "completion".',
        )
    if not row.keys().isdisjoint(OPENAI_ANSWERS):
        return Format.PREFERENCES
    for key, format_ in _TELLING:
        if key in row:
            return format_
    raise RowError(
        f'the row has neither "messages" nor "prompt" (found: {_found(row)})',
        f"Write {EXAMPLE_ROW}; or say with a mapping which columns are prompt and completion.",
    )


def _check_keys(row: dict[str, object], format_: Format) -> None:
    shape = SHAPES[format_]
    known = (*shape.telling, *shape.others)
    if len(shape.telling) == 1 and shape.telling[0] not in row:
        raise RowError(
            f'the row has no "{shape.telling[0]}" (found: {_found(row)})',
            f'Rows of the format {format_.value} have "{shape.telling[0]}".',
        )
    for key in row:
        if key not in known and key not in shape.ignored:
            raise RowError(
                f"unknown key {quoted(key)} in the row",
                f"Remove it, or name the columns to use in a mapping: beside {listed(known)} "
                "nothing would be used.",
            )


def _unpacked(value: object) -> object:
    """The list that a text holds as JSON, as tables have to write it; anything else as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("[{"):
        return value
    try:
        found = parse_line(value.encode(errors="replace"), DEFAULT_LIMITS, ended=True)
    except RowError:
        return value
    is_messages = isinstance(found, list) and all(
        isinstance(each, dict) and not _SPEAKERS.isdisjoint(each) for each in found
    )
    return found if is_messages else value


def _found(row: Mapping[str, object]) -> str:
    return ", ".join(quoted(key) for key in list(row)[:5]) or "no keys"
