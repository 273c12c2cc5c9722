"""A fork server and its trainers, as the service talks to them: real processes, pipes and sockets."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from trainer.config import JobFile
from trainer.events import TrainerEvent, decode

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "trainer.forkserver")
SECONDS = 100.0
"""Longest wait for a line; a trainer that keeps silent fails the test and does not hang it."""


class Trainer:
    """The connection to one forked trainer."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self.connection = connection
        self._lines = connection.makefile("rb")

    def events(self) -> Iterator[TrainerEvent]:
        """Events as they come, up to the end of the connection."""
        for line in self._lines:
            yield decode(line)
        self.hang_up()

    def wait_for(self, kind: type[TrainerEvent]) -> TrainerEvent:
        """Skip to the first event of a kind."""
        seen = []
        for event in self.events():
            if isinstance(event, kind):
                return event
            seen.append(event.kind)
        raise AssertionError(f"no {kind.__name__}, but {seen}")

    def cancel(self) -> None:
        self.connection.sendall(b"cancel\n")

    def hang_up(self) -> None:
        """Close our side, as a service that dies does."""
        self._lines.close()
        self.connection.close()


class ForkServer:
    """`python -m trainer.forkserver`, or its double by `command`; ended at the end of the `with` block."""

    def __init__(self, directory: Path, *, preload: Path | None, command: Sequence[str] = COMMAND) -> None:
        self._directory = directory
        self._trainers: list[Trainer] = []
        more = [] if preload is None else ["--preload", str(preload)]
        self.process = subprocess.Popen(
            [*command, str(directory), "--threads", "1", *more],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        assert self.line() == {"ready": True}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(SECONDS)
        for trainer in self._trainers:
            trainer.hang_up()

    def line(self) -> dict[str, object]:
        """The next control line; empty at the end."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        message = json.loads(line) if line else {}
        assert isinstance(message, dict)
        return message

    def write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def start(self, job: JobFile) -> Trainer:
        """Hand over a job and accept its trainer's connection."""
        job.work_path.mkdir(parents=True, exist_ok=True)
        job_path = job.work_path / f"job-{job.attempt}.json"
        job.write(job_path)
        # Relative to a short directory, for a socket's path has room for 107 bytes.
        address = self._directory / f"{job.job_id}-{job.attempt}"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(address))
            listener.listen()
            listener.settimeout(SECONDS)
            self.write(json.dumps({"job": str(job_path), "socket": str(address)}).encode() + b"\n")
            connection, _ = listener.accept()
        connection.settimeout(SECONDS)
        started = self.line()
        assert started["started"] == str(job_path)
        pid = started["pid"]
        assert isinstance(pid, int)
        self._trainers.append(Trainer(pid, connection))
        return self._trainers[-1]

    def end(self) -> int:
        """Close its standard input and wait for it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(SECONDS)


def kill(pid: int) -> None:
    """SIGKILL, which nothing can prepare for."""
    os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether a process still runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
