"""Reads single tensors out of safetensors files by memory map, after a check of our own of what the header
claims.

A file is eight bytes (the header's length), a JSON header, and the numbers. Nothing is executed and nothing
but the wanted bytes is read. Knows nothing of models.
"""

import json
import math
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.jsonshape import Json, array, count, mapping, text

MAX_HEADER_BYTES = 100_000_000
"""The limit of the format's own readers."""
_SIZES = {"BF16": 2, "F16": 2, "F32": 4}
"""Bytes of a number; tensors of other kinds are listed by nobody here."""


class UnreadableTensorError(Exception):
    """The file is no whole safetensors file; the message says what is wrong."""


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """Where a tensor's numbers are."""

    path: Path
    dtype: str
    """BF16, F16 or F32."""
    shape: tuple[int, ...]
    offset: int
    """In the file, in bytes."""
    size_bytes: int


def tensors_of(path: Path) -> Mapping[str, TensorEntry]:
    """The 16- and 32-bit floating-point tensors of a file, by name; blocks on disk.

    Raises UnreadableTensorError.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header_bytes = int.from_bytes(file.read(8), "little")
            if not 2 <= header_bytes <= min(size - 8, MAX_HEADER_BYTES):
                raise ValueError("its header is longer than the file")
            header = mapping(json.loads(file.read(header_bytes)))
        entries = {name: mapping(entry) for name, entry in header.items() if name != "__metadata__"}
        return {
            name: _entry(path, entry, 8 + header_bytes, size)
            for name, entry in entries.items()
            if entry["dtype"] in _SIZES
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnreadableTensorError(f"{path.name} is not a whole safetensors file: {error}") from error


def read(entry: TensorEntry) -> bytes:
    """All numbers of a tensor, little-endian; blocks on disk. Raises UnreadableTensorError."""
    with Rows(entry) as rows:
        return rows.all()


class Rows:
    """A two-dimensional tensor, mapped: rows are read when they are asked for. Close it when done."""

    def __init__(self, entry: TensorEntry) -> None:
        """Raises UnreadableTensorError unless it has two dimensions, and rows."""
        if len(entry.shape) != 2 or not entry.size_bytes:
            raise UnreadableTensorError(f"a tensor of {entry.path.name} has shape {entry.shape}, not rows")
        self.count, self.width = entry.shape
        self._start = entry.offset
        self._row_bytes = entry.size_bytes // self.count
        try:
            with entry.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise UnreadableTensorError(f"{entry.path.name} cannot be mapped: {error}") from error

    def __enter__(self) -> "Rows":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, index: int) -> bytes:
        """Raises IndexError for a row that is not there."""
        if not 0 <= index < self.count:
            raise IndexError(f"row {index} of {self.count}")
        start = self._start + index * self._row_bytes
        return self._map[start : start + self._row_bytes]

    def all(self) -> bytes:
        """All rows, one after the other."""
        return self._map[self._start : self._start + self.count * self._row_bytes]

    def close(self) -> None:
        """Give the map back."""
        self._map.close()


def _entry(path: Path, fields: Json, data_offset: int, file_bytes: int) -> TensorEntry:
    dtype = text(fields["dtype"])
    shape = tuple(count(each) for each in array(fields["shape"]))
    start, end = (count(each) for each in array(fields["data_offsets"]))
    if end - start != math.prod(shape) * _SIZES[dtype] or data_offset + end > file_bytes:
        raise ValueError("a tensor lies beyond its end, or is not as long as its shape")
    return TensorEntry(
        path=path, dtype=dtype, shape=shape, offset=data_offset + start, size_bytes=end - start
    )
