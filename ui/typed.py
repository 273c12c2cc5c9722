"""What is typed into fields of text: numbers, columns, names. Each may be left out, and is refused by name.

Numbers are text, because an empty number field turns into 0 by itself.
"""

import re

from ui.words import refusal

_INT32_MAX = 2**31 - 1
"""What a message can carry; which numbers make sense is the service's to judge."""
_BETWEEN_PAIRS = re.compile(r"\n|,(?=[^,=\n]*=)")
"""A line's end, or a comma before another KEY=: names of columns may have commas too."""
_ADAPTER = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DATASET = re.compile(r"(datasets/)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HUB = re.compile(r"hf:[^/\s]+/[^/\s]+")
_VERSION = re.compile(r"(?P<adapter>[^@/]+)@(?P<number>[0-9]+)")


def whole(text: str, field: str) -> int | None:
    """A whole number, None for an empty field. Raises InvalidArgument naming `field`."""
    if not text.strip():
        return None
    try:
        number = int(text)
    except ValueError:
        raise refusal(field, f"{text[:40]!r} is not a whole number, for example 8") from None
    if abs(number) > _INT32_MAX:
        raise refusal(field, f"{text[:40]} is far outside its range")
    return number


def decimal(text: str, field: str) -> float | None:
    """A decimal number, None for an empty field. Raises InvalidArgument naming `field`."""
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise refusal(field, f"{text[:40]!r} is not a number, for example 2e-4") from None


def columns(text: str, field: str) -> dict[str, str]:
    """Columns by key of a format, typed as KEY=COLUMN a line. Raises InvalidArgument naming `field`."""
    found: dict[str, str] = {}
    for pair in filter(None, map(str.strip, _BETWEEN_PAIRS.split(text))):
        key, separator, column = map(str.strip, pair.partition("="))
        if not key or not separator or not column:
            raise refusal(field, f"{pair[:60]!r} is not KEY=COLUMN, for example prompt=question")
        if key in found:
            raise refusal(field, f"{key} is given twice, {found[key][:60]} and {column[:60]}")
        found[key] = column
    return found


def adapter_id(text: str, field: str) -> str:
    """The name of an adapter. Raises InvalidArgument naming `field`."""
    if _ADAPTER.fullmatch(text):
        return text
    rule = "lower-case letters, digits and dashes, up to 63, a letter or digit at both ends"
    raise refusal(field, f"{text[:60]!r} is no name; it takes {rule}" if text else f"give a name of {rule}")


def dataset(text: str, field: str) -> str:
    """datasets/{id} of that or of an id, or hf:OWNER/NAME; empty for an empty field. Raises InvalidArgument
    naming `field`."""
    if not text or _HUB.fullmatch(text):
        return text
    if _DATASET.fullmatch(text):
        return f"datasets/{text.removeprefix('datasets/')}"
    raise refusal(field, f"{text[:60]!r} names none; choose one that is kept, or write hf:OWNER/NAME")


def version(text: str, field: str) -> str:
    """adapters/{id}/versions/{n} of that or of {id}@{n}; empty for an empty field. Raises InvalidArgument
    naming `field`."""
    if match := _VERSION.fullmatch(text):
        return f"adapters/{match['adapter']}/versions/{match['number']}"
    if text and "/versions/" not in text:
        raise refusal(field, f"{text[:60]!r} names no version; write it as support@1")
    return text
