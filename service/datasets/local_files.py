"""Files on the service's machine that callers may name: only below directories which the operator allows.

A path is resolved once and then walked from its root without following links, so that what is opened is what
was judged, whoever moves things meanwhile.
"""

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import BinaryIO

from service.errors import FieldViolation, InvalidRequest, NotFound

_CHUNK_BYTES = 1024 * 1024


class LocalFiles:
    """See the module. `roots` are resolved directories; without any, every path is refused."""

    def __init__(
        self,
        roots: Sequence[Path],
        *,
        setting: str = "HOTLORA_DATASET_ROOTS",
        field: str = "local_path",
    ) -> None:
        """`setting` is what allows directories, and `field` what a caller names a path in."""
        self._roots = tuple(roots)
        self._setting = setting
        self._field = field

    def open(self, path: str) -> BinaryIO:
        """The file at an absolute path. Blocking.

        Raises InvalidRequest (not below a root, no regular file, not readable) and NotFound.
        """
        if not self._roots:
            raise self._wrong(f"this service reads no local files; {self._setting} allows directories")
        asked = Path(path)
        if "\0" in path or not asked.is_absolute() or ".." in asked.parts:
            raise self._wrong("must be an absolute path without '..'")
        real = Path(os.path.realpath(asked))
        root = next((root for root in self._roots if real.is_relative_to(root) and real != root), None)
        if root is None:
            raise self._wrong(f"must lead to a file below {' or '.join(map(str, self._roots))}")
        try:
            file = _opened(root, real.relative_to(root).parts)
        except FileNotFoundError as error:
            raise NotFound("FILE_NOT_FOUND", f"there is no file {path[:200]!r}") from error
        except OSError as error:
            raise self._wrong(f"cannot be opened: {error.strerror}") from error
        if file is None:
            raise self._wrong("must be a regular file")
        return file

    def _wrong(self, rule: str) -> InvalidRequest:
        return InvalidRequest([FieldViolation(field=self._field, description=rule)])


async def chunks_of(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    """A file in pieces."""
    while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
        yield chunk


def _opened(root: Path, parts: Sequence[str]) -> BinaryIO | None:
    """The regular file below the root, reached without following any link; None where what is there is none.
    Raises OSError."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for part in parts:
        # Without waiting, as opening a pipe would for somebody who writes into it.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            inner = os.open(part, flags, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = inner
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")
