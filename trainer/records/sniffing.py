"""Which container a file is, told by its first bytes and never by its name.

The answer for some bytes is the answer for all files that begin with them, so that it does not matter how a
file was cut into chunks.
"""

import codecs
from collections.abc import Sequence

from trainer.records.containers import JSON_SPACE, Container, JsonLines
from trainer.records.json_list import JsonList
from trainer.records.lines import MAGICS, check_magic
from trainer.records.parquet import MAGIC as PARQUET_MAGIC
from trainer.records.parquet import Parquet
from trainer.records.plain_text import PlainText
from trainer.records.rows import Format, Limits, Reading
from trainer.records.table import Table, header_of

GZIP_MAGIC = b"\x1f\x8b"
_LOOKED_AT_BYTES = 64 * 1024
"""A header is within these, or the file is no table."""
_KNOWN_BEGINNINGS: Sequence[bytes] = (codecs.BOM_UTF8, GZIP_MAGIC, PARQUET_MAGIC, *MAGICS)


def container_of(begin: bytes, limits: Limits, reading: Reading, *, is_whole: bool) -> Container | None:
    """The container for a file that begins so; None where more has to be seen. Raises RowError.

    `is_whole` is whether nothing follows. A byte order mark belongs to `begin`.
    """
    if not is_whole and any(known.startswith(begin) and known != begin for known in _KNOWN_BEGINNINGS):
        return None
    if begin.startswith(PARQUET_MAGIC):
        return Parquet(limits, sorted(set(reading.mapping.values())))
    check_magic(begin)
    text = begin.removeprefix(codecs.BOM_UTF8).lstrip(JSON_SPACE)
    return _of_text(text, limits, reading, is_enough=is_whole or len(begin) >= _LOOKED_AT_BYTES)


def _of_text(text: bytes, limits: Limits, reading: Reading, *, is_enough: bool) -> Container | None:
    container: Container | None = None
    line, newline, _ = text.partition(b"\n")
    if text.startswith(b"{"):
        container = _lines_or_text(text, limits, reading, is_enough=is_enough)
    elif not text and is_enough:
        container = JsonLines(limits)
    elif text.startswith(b"["):
        container = _list_or_text(text, limits, reading, is_enough=is_enough)
    elif text and reading.format is Format.TEXT and not reading.mapping:
        container = PlainText(limits)
    elif newline or is_enough:
        container = _table_or_lines(line, limits, reading)
    return container


def _lines_or_text(text: bytes, limits: Limits, reading: Reading, *, is_enough: bool) -> Container | None:
    if reading.format is not Format.TEXT or reading.mapping:
        return JsonLines(limits)
    inner = text[1:].lstrip(b" \t")
    if not inner and not is_enough:
        return None
    return JsonLines(limits) if inner.startswith((b'"', b"}")) else PlainText(limits)


def _list_or_text(text: bytes, limits: Limits, reading: Reading, *, is_enough: bool) -> Container | None:
    if reading.format is not Format.TEXT:
        return JsonList(limits)
    inner = text[1:].lstrip(JSON_SPACE)
    if not inner and not is_enough:
        return None
    return JsonList(limits) if inner.startswith(b"{") else PlainText(limits)


def _table_or_lines(line: bytes, limits: Limits, reading: Reading) -> Container:
    try:
        first = line.decode().removesuffix("\r")
    except UnicodeDecodeError:
        return JsonLines(limits)
    header = header_of(first)
    if header is None and first.strip() in ("text", *reading.mapping.values()):
        header = (",", [first.strip()])
    return JsonLines(limits) if header is None else Table(limits, header)
