"""What a row is, and the two shapes it may have, as checks on an already bounded JSON object.

It does not know lines, files or encodings.
"""

import json
import re
from dataclasses import dataclass

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_MESSAGE_KEYS = {"role", "content", "weight"}
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
    """Line in the file, from 1."""
    messages: tuple[Turn, ...]
    """An optional system message, then user and assistant in turn, ending with the assistant."""


@dataclass(frozen=True, kw_only=True)
class LineProblem:
    """Why a line, or the file from that line on, was refused."""

    line: int
    """Line in the file, from 1."""
    reason: str
    """What was found, in a few words."""
    advice: str
    """What would be accepted."""


class RowError(Exception):
    """A row that is not accepted, as the reason and the advice of a `LineProblem`."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = advice


def turns_of(row: object) -> tuple[Turn, ...]:
    """The conversation of a row's JSON value. Raises RowError."""
    if not isinstance(row, dict):
        raise RowError(f"the row is {_kind(row)}, not an object", f"Write {EXAMPLE_ROW}.")
    messages_shape = "messages" in row
    prompt_shape = "prompt" in row or "completion" in row
    if messages_shape and prompt_shape:
        raise RowError(
            'the row has "messages" and also "prompt" or "completion"',
            'Keep either "messages" or the pair "prompt" and "completion".',
        )
    if not messages_shape and not prompt_shape:
        found = ", ".join(quoted(key) for key in list(row)[:5]) or "no keys"
        raise RowError(
            f'the row has neither "messages" nor "prompt" (found: {found})', f"Write {EXAMPLE_ROW}."
        )
    expected = {"messages"} if messages_shape else {"prompt", "completion"}
    for key in row:
        if key not in expected:
            raise RowError(
                f"unknown key {quoted(key)} in the row",
                f"Remove it: beside {_listed(expected)} nothing would be used.",
            )
    return _turns_of_messages(row["messages"]) if messages_shape else _turns_of_prompt(row)


def _turns_of_prompt(row: dict[str, object]) -> tuple[Turn, ...]:
    for key in ("prompt", "completion"):
        if key not in row:
            raise RowError(f'"{key}" is missing', 'A row needs both "prompt" and "completion".')
    return (
        Turn(role="user", content=_text(row["prompt"], '"prompt"')),
        Turn(role="assistant", content=_text(row["completion"], '"completion"'), trained=True),
    )


def _turns_of_messages(messages: object) -> tuple[Turn, ...]:
    if not isinstance(messages, list):
        raise RowError(f'"messages" is {_kind(messages)}, not a list', f"Write {EXAMPLE_ROW}.")
    if not messages:
        raise RowError('"messages" is empty', "A row needs at least one user and one assistant message.")
    turns = tuple(_turn(message, f"messages[{index}]") for index, message in enumerate(messages))
    _check_order(turns)
    if not any(turn.trained for turn in turns):
        raise RowError(
            "no assistant message is trained on: each has weight 0",
            "Give at least one assistant message weight 1, or leave its weight out.",
        )
    return turns


def _turn(message: object, where: str) -> Turn:
    if not isinstance(message, dict):
        raise RowError(f"{where} is {_kind(message)}, not an object", f"Write {EXAMPLE_ROW}.")
    for key in message:
        if key not in _MESSAGE_KEYS:
            raise RowError(
                f"unknown key {quoted(key)} in {where}",
                'Remove it: a message has "role", "content" and, for the assistant, "weight".',
            )
    for key in ("role", "content"):
        if key not in message:
            raise RowError(f'{where} has no "{key}"', 'Each message needs "role" and "content".')
    role = message["role"]
    if not isinstance(role, str):
        raise RowError(f"{where}.role is {_kind(role)}, not a string", "Use system, user or assistant.")
    if role not in ("system", "user", "assistant"):
        raise RowError(f"{where}.role is {quoted(role)}", "Use system, user or assistant.")
    content = _text(message["content"], f"{where}.content")
    return Turn(role=role, content=content, trained=_trained(message, role, where))


def _trained(message: dict[str, object], role: str, where: str) -> bool:
    if "weight" not in message:
        return role == "assistant"
    weight = message["weight"]
    if role != "assistant":
        raise RowError(
            f"{where} has a weight, but its role is {role}",
            "Remove it: only the assistant's messages are trained on.",
        )
    if isinstance(weight, bool) or not isinstance(weight, int | float) or weight not in (0, 1):
        shown = weight if isinstance(weight, int | float) and not isinstance(weight, bool) else _kind(weight)
        raise RowError(f"{where}.weight is {shown}", "Use 1 to train on the message, or 0 not to.")
    return weight == 1


def _check_order(turns: tuple[Turn, ...]) -> None:
    roles = [turn.role for turn in turns]
    first = 1 if roles[0] == "system" else 0
    if len(roles) == first:
        raise RowError(
            "the row has only a system message", "Add a user message and the assistant's answer to it."
        )
    for index, role in enumerate(roles[first:]):
        expected = "user" if index % 2 == 0 else "assistant"
        if role == "system":
            raise RowError(
                f"messages[{first + index}] is a system message, but not the first",
                "Keep at most one system message, as the first.",
            )
        if role != expected:
            raise RowError(
                f"messages[{first + index}].role is {role} where {expected} must stand",
                "After an optional system message, user and assistant take turns, the user first.",
            )
    if roles[-1] != "assistant":
        raise RowError("the last message is the user's", "End each row with the assistant's answer.")


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise RowError(f"{where} is {_kind(value)}, not a string", f"Write {where} as text in double quotes.")
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


def _listed(keys: set[str]) -> str:
    return " and ".join(f'"{key}"' for key in sorted(keys, reverse=True))


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    for kind, name in ((dict, "an object"), (list, "a list"), (str, "a string")):
        if isinstance(value, kind):
            return name
    return "a number"
