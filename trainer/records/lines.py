"""One line of bytes to one JSON value, within bounds that are checked before `json` sees the line.

It knows neither what a row must look like nor where in a file the line stands.
"""

import codecs
import json
import math
import re
from collections.abc import Iterable

from trainer.records.rows import EXAMPLE_ROW, Limits, RowError, quoted

# A whole string, or an unclosed one up to the end: without that second way out, each of its quotes would be
# tried as a beginning, and one long line would take minutes. Possessive, so nothing is tried twice.
_MARKS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[{}\[\]:]', re.DOTALL)

_MAX_NUMBER_CHARACTERS = 20
"""Longer numbers are refused before they are computed; the only number in a row is a weight."""

_JSON_ADVICE = f"Each line is one complete JSON object: {EXAMPLE_ROW}."

_MAGIC = (
    (b"PK\x03\x04", "a zip archive or an Office document", "Unpack it or export it as JSON Lines."),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "Unpack it first and upload the file inside."),
    (b"\xfd7zXZ", "an xz archive", "Unpack it first and upload the file inside."),
    (b"BZh", "a bzip2 archive", "Unpack it first and upload the file inside."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it first and upload the file inside."),
    (b"%PDF-", "a PDF document", "Write its text into JSON Lines."),
    (b"ARROW1", "an Arrow file", "Export it as JSON Lines."),
    (b"SQLite format 3", "an SQLite database", "Export it as JSON Lines."),
    (b"\x89PNG", "a PNG image", "Only text can be trained on."),
    (b"\xff\xd8\xff", "a JPEG image", "Only text can be trained on."),
    (codecs.BOM_UTF32_LE, "UTF-32 text", "Save the file as UTF-8."),
    (codecs.BOM_UTF16_LE, "UTF-16 text", "Save the file as UTF-8."),
    (codecs.BOM_UTF16_BE, "UTF-16 text", "Save the file as UTF-8."),
    (b"\x00\x00\xfe\xff", "UTF-32 text", "Save the file as UTF-8."),
)


MAGICS = tuple(magic for magic, _, _ in _MAGIC)
"""How other kinds of files begin."""


def check_magic(start: bytes) -> None:
    """Raise RowError if a file that begins like this is another kind of file altogether."""
    for magic, kind, advice in _MAGIC:
        if start.startswith(magic):
            raise RowError(f"the file looks like {kind}", advice)


def parse_line(line: bytes, limits: Limits, *, ended: bool) -> object:
    """The JSON value of a line. Raises RowError.

    `ended` is whether a newline followed; a line without one that is not whole was cut off.
    """
    if b"\0" in line:
        raise RowError(
            f"a NUL byte at byte {line.index(0) + 1} of the line: binary data or UTF-16",
            "Save the file as plain text in UTF-8.",
        )
    text = decoded(line, ended)
    if text.startswith("\ufeff"):
        raise RowError(
            "a byte order mark inside the file",
            "Remove the line's first character; it is left of joining two files.",
        )
    unclosed = not _is_small(text, limits) and _check_bounds(text, limits)
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        if not ended and (unclosed or _check_bounds(text, limits)):
            raise RowError("the last line is cut off", "Upload the file again, whole.") from error
        raise RowError(f"not JSON: {_message(error)}", _advice(text, error)) from error


def decoded(line: bytes, ended: bool) -> str:
    """The text of a line. Raises RowError where it is not UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and not ended:
            raise RowError("the last line is cut off", "Upload the file again, whole.") from error
        raise RowError(
            f"not UTF-8 at byte {error.start + 1} of the line (0x{line[error.start]:02x})",
            "Save the file as UTF-8; it may be Latin-1 or Windows-1252 now.",
        ) from error


def _is_small(text: str, limits: Limits) -> bool:
    """Whether the text has so few marks, also counting those in strings, that no bound can be exceeded."""
    brackets = text.count("{") + text.count("[")
    return brackets <= min(limits.max_depth, limits.max_messages) and text.count(":") <= limits.max_keys


def _check_bounds(text: str, limits: Limits) -> bool:
    """Raise RowError for too deep nesting or too many keys; else tell whether a bracket stays open."""
    keys: list[int] = []  # keys seen so far of each open object or list, outermost first
    opened = 0
    for match in _MARKS.finditer(text):
        mark = text[match.start()]
        if mark in "{[":
            keys.append(0)
            if len(keys) > limits.max_depth:
                raise RowError(
                    f"nested deeper than {limits.max_depth} levels at column {match.start() + 1}",
                    f"A row is flat: {EXAMPLE_ROW}.",
                )
            opened += 1
            if opened > limits.max_messages + 2:  # the row and its list of messages
                raise RowError(
                    f"more than {limits.max_messages} messages (or other objects) in one row",
                    f"Split the conversation into rows of at most {limits.max_messages} messages.",
                )
        elif mark in "}]":
            if keys:
                keys.pop()
        elif mark == ":" and keys:
            keys[-1] += 1
            if keys[-1] > limits.max_keys:
                raise RowError(
                    f"more than {limits.max_keys} keys in one object at column {match.start() + 1}",
                    f"A row has few keys: {EXAMPLE_ROW}.",
                )
    return bool(keys)


def _object(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for key, value in pairs:
        if key in fields:
            raise RowError(f"the key {quoted(key)} stands twice in one object", "Keep one of them.")
        fields[key] = value
    return fields


def _refuse_constant(name: str) -> object:
    raise RowError(f"{name} is not a JSON number", "Use finite numbers; the only one in a row is a weight.")


def _float(text: str) -> float:
    value = float(text) if len(text) <= _MAX_NUMBER_CHARACTERS else math.inf
    if not math.isfinite(value):
        raise RowError(f"the number {_shortened(text)} is too large or too long", "A weight is 0 or 1.")
    return value


def _int(text: str) -> int:
    if len(text) > _MAX_NUMBER_CHARACTERS:
        raise RowError(f"the number {_shortened(text)} is too large", "A weight is 0 or 1.")
    return int(text)


def _shortened(number: str) -> str:
    return number if len(number) <= _MAX_NUMBER_CHARACTERS else number[:_MAX_NUMBER_CHARACTERS] + "..."


def _message(error: json.JSONDecodeError) -> str:
    said = error.msg[:1].lower() + error.msg[1:].removesuffix(" at").removesuffix(" starting at")
    return f"{said} at column {error.pos + 1}"


def _advice(text: str, error: json.JSONDecodeError) -> str:
    start = text.lstrip()
    if start.startswith("["):
        return f"Write no list around the rows and no commas between them. {_JSON_ADVICE}"
    spread = text.rstrip().endswith(("{", ",", "[")) and error.pos >= len(text.rstrip())
    if spread or start.startswith(('"', "}", "]")):
        return "Write each row on one line; here it is spread over several."
    if start.startswith("{'"):
        return "Use double quotes around keys and texts; single quotes are not JSON."
    rest = text[error.pos :]
    if rest.strip() == "," and error.msg == "Extra data":
        return "Remove the comma at the end: rows are separated by line breaks alone."
    for message, advice in _ADVICE.items():
        if error.msg.startswith(message):
            return advice
    return _JSON_ADVICE


_ADVICE = {
    "Extra data": "Put each row on a line of its own, ended by a newline (\\n).",
    "Invalid control character": "Inside a text, write a line break as \\n and a tab as \\t.",
    "Invalid \\": "Inside a text, write a backslash twice.",
}
"""What Python's parser says, as far as there is better advice for it than an example."""

_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_float, parse_int=_int
)
