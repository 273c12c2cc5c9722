"""Headers of safetensors files: which tensors there are and where, after a check of what the header claims.

A file is eight bytes (the header's length), a JSON header, and the numbers. Only the header is read. Standard
library only; it knows neither models nor what the numbers mean.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MAX_HEADER_BYTES = 100_000_000
"""The limit of the format's own readers."""


class TensorHeaderError(Exception):
    """The file is no whole safetensors file; the message says what is wrong."""


@dataclass(frozen=True, kw_only=True)
class TensorHeader:
    """What is said of one tensor."""

    dtype: str
    """As the format calls it, for example BF16."""
    shape: tuple[int, ...]
    begin: int
    """Of its numbers in the file, in bytes."""
    end: int


def read_headers(path: Path) -> Mapping[str, TensorHeader]:
    """Every tensor of a file by its name; blocks on disk.

    A cut-off copy is refused: the last tensor has to end where the file does. Raises TensorHeaderError.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header_bytes = int.from_bytes(file.read(8), "little")
            if not 2 <= header_bytes <= min(size - 8, MAX_HEADER_BYTES):
                raise ValueError("its header is longer than the file")
            entries = json.loads(file.read(header_bytes))
        entries.pop("__metadata__", None)
        offset = 8 + header_bytes
        headers = {name: _header(entry, offset) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TensorHeaderError(f"{path} is not a whole safetensors file: {error}") from error
    if not headers or max(header.end for header in headers.values()) != size:
        raise TensorHeaderError(f"{path} is not a whole safetensors file: it has not the length that it says")
    return headers


def _header(entry: Mapping[str, object], offset: int) -> TensorHeader:
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or not isinstance(offsets, list):
        raise TypeError("a tensor's shape or place is no list")
    begin, end = map(_count, offsets)
    return TensorHeader(
        dtype=str(entry["dtype"]),
        shape=tuple(map(_count, shape)),
        begin=offset + begin,
        end=offset + end,
    )


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("a tensor's shape or place is no whole number")
    return value
