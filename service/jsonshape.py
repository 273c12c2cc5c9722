"""Reads JSON of unknown shape: each function gives the value as its type, or raises TypeError saying what
it is.

Knows nothing of what is read; callers turn TypeError into an error of their own.
"""

import math
from collections.abc import Mapping

Json = Mapping[str, object]


def mapping(value: object) -> Json:
    """A JSON object."""
    if not isinstance(value, dict):
        raise TypeError(f"{type(value).__name__} where an object was expected")
    return value


def array(value: object) -> list[object]:
    """A JSON array."""
    if not isinstance(value, list):
        raise TypeError(f"{type(value).__name__} where a list was expected")
    return value


def text(value: object) -> str:
    """A JSON string."""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where a text was expected")
    return value


def integer(value: object) -> int:
    """A JSON number without a fraction; true and false are none."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{type(value).__name__} where a whole number was expected")
    return value


def count(value: object) -> int:
    """A whole number of 0 or more."""
    number = integer(value)
    if number < 0:
        raise TypeError(f"{number} where a count was expected")
    return number


def number(value: object) -> float:
    """A JSON number; not necessarily finite, as Python reads NaN and Infinity too."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{type(value).__name__} where a number was expected")
    return float(value)


def given(value: object) -> Json:
    """The fields of an object; what is null counts as not given. Raises TypeError."""
    return {name: each for name, each in mapping(value).items() if each is not None}


NO_UNICODE = "has half a surrogate pair, which is no text"
"""What is wrong with a text that is not `is_unicode`."""


def is_unicode(found: str) -> bool:
    """Whether a text can be written anywhere; JSON also has halves of surrogate pairs."""
    try:
        found.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_plain(value: object, depth: int) -> bool:
    """Whether a value is nested up to `depth` deep, its numbers are finite and its texts Unicode."""
    match value:
        case str():
            return is_unicode(value)
        case float():
            return math.isfinite(value)
        case list():
            return depth > 0 and all(is_plain(each, depth - 1) for each in value)
        case dict():
            return depth > 0 and all(
                is_unicode(key) and is_plain(each, depth - 1) for key, each in value.items()
            )
        case _:
            return True
