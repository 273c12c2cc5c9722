"""Unpacks gzip as it arrives, a bounded piece at a time: a small archive cannot become a large memory."""

import zlib
from collections.abc import Iterator

from trainer.records.rows import RowError

_PIECE_BYTES = 64 * 1024
_GZIP = zlib.MAX_WBITS | 16


class Gunzip:
    """One gzip file, of one member or several."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What the chunk unpacks to, in pieces of at most 64 KiB. Raises RowError."""
        while chunk:
            if self._member.eof:
                chunk = chunk.lstrip(b"\0")  # tapes and block devices pad; gzip passes over it, too
                if not chunk:
                    return
                self._member = zlib.decompressobj(_GZIP)
            try:
                piece = self._member.decompress(chunk, _PIECE_BYTES)
            except zlib.error as error:
                raise RowError("the gzip archive is damaged", "Pack the file again.") from error
            chunk = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if piece:
                yield piece

    def finish(self) -> None:
        """Raise RowError where the archive has no end."""
        if not self._member.eof:
            raise RowError("the gzip archive is cut off", "Upload the file again, whole.")
