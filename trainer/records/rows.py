"""What a row is, how much of a file is looked at, and how a row is refused.

It does not know files, encodings, or which shapes of JSON make a row: those are `shapes`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_QUOTED_CHARACTERS = 40
"""How much of a stranger's text a reason repeats; more would make errors unreadable."""

EXAMPLE_ROW = (
    '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
    ' or {"prompt": "...", "completion": "..."}'
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much of a file is looked at. The defaults are what the API promises."""

    max_file_bytes: int = 512 * 1024 * 1024
    max_rows: int = 1_000_000
    max_lines: int = 2_000_000
    """Blank lines count here and not as rows: without this, a file of newlines would be hours of work."""
    max_line_bytes: int = 1024 * 1024
    """Bytes of a line without its newline."""
    max_depth: int = 32
    """Objects and lists inside one another."""
    max_keys: int = 64
    """Keys of one object."""
    max_messages: int = 512
    """Messages of one row. Rendering takes time that grows with the square of it."""
    max_problems: int = 1000
    """After so many refused lines the rest of the file is not looked at."""


DEFAULT_LIMITS = Limits()
KEPT_LIMITS = Limits(max_file_bytes=4 << 30, max_line_bytes=8 << 20)
"""For files that were checked and written in their canonical form, which may be longer than as uploaded."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One message of a conversation."""

    role: str
    """system, user or assistant."""
    content: str
    trained: bool = False
    """Whether its words carry loss; only ever true for the assistant."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One accepted row."""

    line: int
    """Line in the file, from 1; in a list and in Parquet which row."""
    messages: tuple[Turn, ...]
    """An optional system message, then user and assistant in turn, ending with the assistant."""


@dataclass(frozen=True, kw_only=True)
class TextRecord:
    """One accepted document, for training on plain text."""

    line: int
    """Line in the file, from 1."""
    text: str


@dataclass(frozen=True, kw_only=True)
class PreferenceRecord:
    """One accepted pair: what is asked, the answer that is wanted, and one that is not."""

    line: int
    """Line in the file, from 1."""
    prompt: tuple[Turn, ...]
    """An optional system message, then user and assistant in turn, ending with the user; none is trained."""
    chosen: tuple[Turn, ...]
    """What follows it: the assistant's turn, or assistant and user in turn, ending with the assistant."""
    rejected: tuple[Turn, ...]
    """The same, never equal to `chosen`."""


AnyRecord = Record | TextRecord | PreferenceRecord


class Format(StrEnum):
    """The shape of a row's object. Which container the rows came in (JSON, CSV, ...) is another matter."""

    CHAT = "chat"
    """{"messages": [{"role", "content", "weight"}, ...]}, as the OpenAI fine-tuning API takes it."""
    PROMPT_COMPLETION = "prompt_completion"
    """{"prompt", "completion"}, each of them text or messages."""
    ALPACA = "alpaca"
    """{"instruction", "input", "output", "system", "history"}; the first and the third are required."""
    SHAREGPT = "sharegpt"
    """{"conversations": [{"from", "value"}, ...], "system"}."""
    TEXT = "text"
    """{"text"}, or a file of plain text."""
    PREFERENCES = "preferences"
    """{"prompt", "chosen", "rejected"}, or {"input", "preferred_output", "non_preferred_output"}."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How rows are understood."""

    format: Format | None = None
    """The shape of every row; None: each row's keys tell it."""
    mapping: Mapping[str, str] = field(default_factory=dict)
    """For each key of the shape the column of the file that holds it; other columns are then ignored.
    Empty: columns are called as the shape calls its keys, and others are refused."""


@dataclass(frozen=True, kw_only=True)
class RawRow:
    """A row as its container gave it, not yet understood."""

    line: int
    value: object
    """A JSON value within the bounds of `Limits`."""


class Kind(StrEnum):
    """What all rows of one file are."""

    CONVERSATIONS = "conversations"
    TEXT = "text"
    PREFERENCES = "preferences"


def kind_of(record: AnyRecord) -> Kind:
    """The kind that a file with this row has."""
    match record:
        case Record():
            return Kind.CONVERSATIONS
        case TextRecord():
            return Kind.TEXT
        case PreferenceRecord():
            return Kind.PREFERENCES


@dataclass(frozen=True, kw_only=True)
class LineProblem:
    """Why a line, or the file from that line on, was refused."""

    line: int
    """Line in the file, or row, from 1."""
    reason: str
    """What was found, in a few words."""
    advice: str
    """What would be accepted."""
    unit: Literal["line", "row"] = "line"
    """What is counted: lines where the file has them, else (in a list, in Parquet) rows."""
    is_of_file: bool = False
    """Whether the file is not read beyond it, so that leaving this one row out does not help."""

    @property
    def place(self) -> str:
        """Such as "line 7"."""
        return f"{self.unit} {self.line}"


class RowError(Exception):
    """A row that is not accepted, as the reason and the advice of a `LineProblem`."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = advice


def checked_text(value: object, where: str) -> str:
    """A string that says something. Raises RowError naming `where`."""
    if not isinstance(value, str):
        raise RowError(
            f"{where} is {kind_name(value)}, not a string", f"Write {where} as text in double quotes."
        )
    if not value.strip():
        raise RowError(f"{where} is empty", "Write some text there, or remove the row.")
    if "\0" in value:
        raise RowError(f"{where} contains the character NUL", "Remove \\u0000 from the text.")
    if not value.isascii() and _LONE_SURROGATE.search(value):
        raise RowError(
            f"{where} contains half of a surrogate pair",
            "Write the character as itself, or as both halves, such as \\ud83d\\ude00.",
        )
    return value


def quoted(text: str) -> str:
    """A stranger's text in double quotes, shortened, every unusual character escaped."""
    short = text if len(text) <= _QUOTED_CHARACTERS else text[:_QUOTED_CHARACTERS] + "..."
    return json.dumps(short)


def listed(keys: Iterable[str]) -> str:
    """Keys in double quotes, joined by "and"."""
    return " and ".join(f'"{key}"' for key in sorted(keys, reverse=True))


def kind_name(value: object) -> str:
    """What a JSON value is, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    for kind, name in ((dict, "an object"), (list, "a list"), (str, "a string")):
        if isinstance(value, kind):
            return name
    return "a number"
