"""Rows in a Parquet file, read by a process of its own.

Parquet can only be read from its end, and only by a library that was not written for files of strangers. So
the file is kept on disk until it is whole, its frame is checked here, and a child process with bounded memory
and time turns it into JSON Lines, which are then read like anybody else's. A file that kills the child is
refused like any other that cannot be read.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Literal

from trainer.records.containers import JsonLines
from trainer.records.rows import Limits, LineProblem, RawRow

MAGIC = b"PAR1"
MAX_FOOTER_BYTES = 16 * 1024 * 1024
_READ_BYTES = 64 * 1024
_REFUSED_STATUS = 3
"""With which the child ends when it has said why the file is refused."""


class Parquet:
    """See the module; a `Container`. `columns` are those to read; empty means all."""

    unit: Literal["line", "row"] = "row"

    def __init__(self, limits: Limits, columns: Sequence[str]) -> None:
        self._limits = limits
        self._columns = tuple(columns)
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._bytes = 0
        self._rows = JsonLines(limits)
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def line(self) -> int:
        """See Container."""
        return self._rows.line

    def feed(self, chunk: bytes) -> Iterator[RawRow | LineProblem]:
        """See Container: nothing is known before the end."""
        self._file.write(chunk)
        self._bytes += len(chunk)
        yield from ()

    def finish(self) -> Iterator[RawRow | LineProblem]:
        """See Container."""
        reason = self._wrong_frame()
        if reason:
            yield self._of_file(reason, "Write the file again, or export it as JSON Lines.")
            return
        self._child = child = self._start()
        assert child.stdout is not None, "it was asked for"
        while piece := child.stdout.read1(_READ_BYTES):  # type: ignore[attr-defined]
            yield from self._counted(self._rows.feed(piece))
        yield from self._counted(self._rows.finish())
        status = child.wait()
        if status == _REFUSED_STATUS:
            yield self._of_file(_said(child), "Split the file, or export it as JSON Lines.")
        elif status != 0:
            yield self._of_file(
                "the file cannot be read as Parquet within bounds of memory and time",
                "It may be damaged; write it again in smaller row groups, or export it as JSON Lines.",
            )

    def close(self) -> None:
        """End the child and forget the file."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdout, self._child.stderr):
                if pipe is not None:
                    pipe.close()
        self._file.close()

    def _start(self) -> subprocess.Popen[bytes]:
        self._file.flush()
        self._file.seek(0)
        limits = (self._limits.max_rows, self._limits.max_file_bytes, self._limits.max_keys)
        arguments = [str(self._file.fileno()), *map(str, limits), *self._columns]
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "trainer.records.parquet_reader", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[self._file.fileno()],
            env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ.get("PATH", "")},
        )

    def _wrong_frame(self) -> str | None:
        """What is wrong with the two ends of the file."""
        if self._bytes < 12:
            return "the Parquet file is cut off"
        self._file.seek(-8, os.SEEK_END)
        tail = self._file.read(8)
        footer_bytes = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or footer_bytes > self._bytes - 12:
            return "the Parquet file is cut off or damaged: its end is not where it says"
        if footer_bytes > MAX_FOOTER_BYTES:
            return f"the Parquet file describes itself in more than {MAX_FOOTER_BYTES:,} bytes"
        return None

    def _counted(self, found: Iterator[RawRow | LineProblem]) -> Iterator[RawRow | LineProblem]:
        for one in found:
            if isinstance(one, RawRow):
                yield one
            else:
                reason = one.reason.replace("the line", "the row")
                yield LineProblem(
                    line=one.line, reason=reason, advice=one.advice, unit="row", is_of_file=one.is_of_file
                )

    def _of_file(self, reason: str, advice: str) -> LineProblem:
        return LineProblem(line=self.line, reason=reason, advice=advice, unit="row", is_of_file=True)


def _said(child: subprocess.Popen[bytes]) -> str:
    assert child.stderr is not None, "it was asked for"
    return child.stderr.read(2000).decode(errors="replace").strip()
