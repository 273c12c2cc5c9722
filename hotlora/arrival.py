"""A directory that arrives file by file: checked as announced, and there whole or not at all.

What a service calls a file is not trusted: a name that is not plain never reaches the disk.
"""

import errno
import hashlib
import os
import re
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from hotlora.errors import DataLoss
from hotlora.v1.adapter_service_pb2 import ExportAdapterVersionResponse, ExportedFile

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")


class Arrival:
    """Written beside `target`, and renamed to it by `finish`; a context manager that tidies up."""

    def __init__(self, target: Path) -> None:
        """Raises FileExistsError where something is at `target`, and OSError where nothing can be written."""
        self._target = target
        self._refuse_existing()
        target.parent.mkdir(parents=True, exist_ok=True)
        self._beside = target.parent / f".{target.name}-{secrets.token_hex(8)}"
        self._beside.mkdir()
        self._names: set[str] = set()
        self._announced = ExportedFile()
        self._file: BinaryIO | None = None
        self._left_bytes = 0
        self._hash = hashlib.sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        shutil.rmtree(self._beside, ignore_errors=True)

    def take(self, piece: ExportAdapterVersionResponse) -> None:
        """Write a piece. Raises DataLoss, OSError."""
        if piece.HasField("file"):
            self._end_file()
            self._begin_file(piece.file)
            return
        if self._file is None or len(piece.chunk) > self._left_bytes:
            raise _wrong(f"more bytes came of {self._announced.name!r} than were announced")
        self._file.write(piece.chunk)
        self._hash.update(piece.chunk)
        self._left_bytes -= len(piece.chunk)

    def finish(self) -> None:
        """All has come: put the directory in its place. Raises DataLoss, FileExistsError, OSError."""
        self._end_file()
        if not self._names:
            raise _wrong("no file came")
        self._refuse_existing()
        self._beside.rename(self._target)

    def _begin_file(self, announced: ExportedFile) -> None:
        if not _PLAIN_NAME.fullmatch(announced.name) or announced.name in self._names:
            raise _wrong(f"{announced.name!r} is no plain file name, or came twice")
        self._names.add(announced.name)
        self._announced = announced
        self._file = (self._beside / announced.name).open("xb")
        self._left_bytes = announced.size_bytes
        self._hash = hashlib.sha256()

    def _end_file(self) -> None:
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        if self._left_bytes or self._hash.hexdigest() != self._announced.sha256:
            raise _wrong(f"{self._announced.name!r} did not come as it was announced")

    def _refuse_existing(self) -> None:
        if os.path.lexists(self._target):
            raise FileExistsError(errno.EEXIST, "exists already", str(self._target))


def _wrong(what: str) -> DataLoss:
    return DataLoss(f"The export is not whole: {what}.", reason="EXPORT_NOT_WHOLE")
