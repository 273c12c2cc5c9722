"""What the command writes to stdout: JSON for programs, tables and plain words for people."""

import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final, Protocol, TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

_SPARKS: Final = "▁▂▃▄▅▆▇█"
_STATE_STYLES: Final = {
    "SUCCEEDED": "green",
    "ACTIVE": "green",
    "READY": "green",
    "FAILED": "red",
    "DOWN": "red",
    "CANCELLED": "yellow",
    "CANCELLING": "yellow",
    "RETIRING": "yellow",
    "RETIRED": "dim",
    "QUEUED": "dim",
}
_PAGE_SIZE: Final = 200
_PIPE_WIDTH: Final = 200
"""Columns of a table in a pipe: enough not to fold names, which programs like grep look for."""


class Page(Protocol):
    """A page of any list of the API."""

    next_page_token: str


PageT = TypeVar("PageT", bound=Page)
ItemT = TypeVar("ItemT")


def console() -> Console:
    """Where results go. Made anew for every command, because whoever runs it may have replaced stdout."""
    is_terminal = sys.stdout.isatty()
    return Console(
        highlight=False,
        markup=False,
        emoji=False,
        width=None if is_terminal else _PIPE_WIDTH,
        soft_wrap=not is_terminal,
    )


def as_dict(message: Message) -> dict[str, object]:
    """The message with protobuf's JSON names; fields without presence are there even at their default."""
    fields: dict[str, object] = MessageToDict(message, always_print_fields_with_no_presence=True)
    return fields


def print_json(document: Message | dict[str, object]) -> None:
    """One JSON document on one line, written out at once: also an element of JSON lines."""
    fields = as_dict(document) if isinstance(document, Message) else document
    print(json.dumps(fields, ensure_ascii=False), flush=True)


def newest(
    fetch: Callable[[int, str], PageT], items: Callable[[PageT], Sequence[ItemT]], *, limit: int
) -> list[ItemT]:
    """The first `limit` items of a list, over as many pages as it takes. `fetch` gets page size and token."""
    found: list[ItemT] = []
    token = ""
    while len(found) < limit:
        page = fetch(min(limit - len(found), _PAGE_SIZE), token)
        found.extend(items(page))
        token = page.next_page_token
        if not token:
            break
    return found


def table(columns: Iterable[str], rows: Iterable[Sequence[str | Text]], *, empty: str) -> None:
    """Prints a table, or the sentence `empty` when there are no rows."""
    cells = list(rows)
    if not cells:
        console().print(empty)
        return
    result = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        result.add_column(column, overflow="fold")
    for row in cells:
        result.add_row(*(cell if isinstance(cell, Text) else Text(plain(cell)) for cell in row))
    console().print(result)


def details(fields: Iterable[tuple[str, str | Text]]) -> None:
    """Prints one thing as names and values; empty values are left out."""
    result = Table(box=None, pad_edge=False, show_header=False)
    result.add_column(style="dim")
    result.add_column(overflow="fold")
    for name, value in fields:
        if str(value):
            result.add_row(name, value if isinstance(value, Text) else Text(plain(value)))
    console().print(result)


def plain(text: str) -> str:
    """The text without control characters: what others wrote must not steer this terminal."""
    return "".join(
        character
        for character in text
        if character in "\n\t" or not (character < " " or "\x7f" <= character < "\xa0")
    )


def state(name: str) -> Text:
    """A state, from its proto name, in its colour."""
    word = name.removeprefix("STATE_")
    return Text(word, style=_STATE_STYLES.get(word, "cyan"))


def when(timestamp: Timestamp, *, now: datetime | None = None) -> str:
    """How long ago; empty for a time that is not set."""
    if not timestamp.ToNanoseconds():
        return ""
    seconds = ((now or datetime.now(UTC)) - timestamp.ToDatetime(UTC)).total_seconds()
    return "just now" if seconds < 1 else f"{duration(seconds)} ago"


def duration(seconds: float) -> str:
    """A duration in at most two units: 42 s, 3 min 10 s, 2 h 5 min, 3 d."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d"


def size(byte_count: int) -> str:
    """A size in the unit that reads best."""
    amount = float(byte_count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def sparkline(values: Sequence[float], *, width: int) -> str:
    """The course of the values in at most `width` characters, each the mean of its share."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    count = min(width, len(finite))
    edges = [index * len(finite) // count for index in range(count + 1)]
    means = [sum(finite[start:end]) / (end - start) for start, end in pairwise(edges)]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(_SPARKS[round((mean - low) / span * (len(_SPARKS) - 1))] for mean in means)
