"""Reads single tensors out of safetensors files by memory map, once `trainer.tensor_headers` has found the
file whole. Nothing is executed and nothing but the wanted bytes is read. Knows nothing of models.
"""

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.tensor_headers import TensorHeader, TensorHeaderError, read_headers

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

    Raises UnreadableTensorError, and OSError where the machine could not look.
    """
    try:
        headers = read_headers(path)
        return {name: _entry(path, header) for name, header in headers.items() if header.dtype in _SIZES}
    except (TensorHeaderError, ValueError) as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise UnreadableTensorError(str(error)) from error


def read(entry: TensorEntry) -> bytes:
    """All numbers of a tensor, little-endian; blocks on disk. Raises UnreadableTensorError, OSError."""
    with Rows(entry) as rows:
        return rows.all()


class Rows:
    """A two-dimensional tensor, mapped: rows are read when they are asked for. Close it when done."""

    def __init__(self, entry: TensorEntry) -> None:
        """Raises UnreadableTensorError unless it has two dimensions, and rows; OSError."""
        if len(entry.shape) != 2 or not entry.size_bytes:
            raise UnreadableTensorError(f"a tensor of {entry.path.name} has shape {entry.shape}, not rows")
        self.count, self.width = entry.shape
        self._start = entry.offset
        self._row_bytes = entry.size_bytes // self.count
        try:
            with entry.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
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


def _entry(path: Path, header: TensorHeader) -> TensorEntry:
    size_bytes = header.end - header.begin
    if size_bytes != math.prod(header.shape) * _SIZES[header.dtype]:
        raise ValueError(f"{path} is not a whole safetensors file: a tensor is not as long as its shape")
    return TensorEntry(
        path=path, dtype=header.dtype, shape=header.shape, offset=header.begin, size_bytes=size_bytes
    )
