"""The fork server: a process with everything imported and the base in memory, which forks a trainer a job.

    python -m trainer.forkserver SOCKET_DIR --threads N --preload BASE_MODEL_DIR

Lines in: `{"job": "/path/job.json", "socket": "/path/x.sock"}`. Lines out: `{"loading": true}` every 10
seconds while a large base is read, `{"ready": true}` once, then for
each job `{"started": "/path/job.json", "pid": 1}` and `{"ended": "/path/job.json", "pid": 1, "exit_code":
0, "signal": null}`. A trainer connects to its socket, writes its events there, and reads `cancel` from it.
When standard input ends, the server kills its trainers and ends. It computes on one thread only, since
threads do not survive a fork.
"""

import argparse
import gc
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

# Before torch is loaded, for then it is too late. One thread in this process: a pool of threads would not
# exist in the children, which wait for it for ever. Idle threads sleep at once: spinning ones take the
# cores from the engine next door.
os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", TOKENIZERS_PARALLELISM="false")
# Whoever asks at its import whether there is a GPU must not initialise CUDA here, where its state would not
# survive the fork.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"

from trainer.forkable import gpu_count, gpus_left_alone  # before anything else imports peft

# isort: split
import torch

from trainer.channel import Channel, watch_lifeline, watch_socket
from trainer.config import JobFile
from trainer.model import BaseModelLoadError
from trainer.precision import fastest_dtype
from trainer.pulse import pulse
from trainer.rendering import RenderingError
from trainer.run import Prepared, prepare, run


@dataclass(frozen=True, kw_only=True)
class _Terms:
    """What every trainer is forked with."""

    prepared: Prepared | None
    threads: int
    nice: int
    lifeline: int
    """Read end of a pipe that ends when this server does, however it does."""


class _Server:
    """Forks trainers and tells of their ends. `say` writes one control line."""

    def __init__(self, terms: _Terms, control: int, server_only: tuple[int, ...]) -> None:
        self._terms = terms
        self._control = control
        self._server_only = (control, *server_only)
        """Descriptors that a child has to close."""
        self._jobs: dict[int, str] = {}
        """Path of the job file by process id of its trainer."""

    def say(self, message: Mapping[str, object]) -> None:
        """Write one line to whoever started the server."""
        _say(self._control, message)

    def fork(self, line: bytes) -> None:
        """Start the trainer that a line asks for; a line that makes no sense is only logged."""
        try:
            request = json.loads(line)
            job, address = str(request["job"]), str(request["socket"])
        except (ValueError, KeyError, TypeError):
            print(f"not a request: {line[:200]!r}", file=sys.stderr)
            return
        try:
            pid = os.fork()
        except OSError as error:
            print(f"no process for {job}: {error}", file=sys.stderr)
            self.say({"ended": job, "pid": 0, "exit_code": 1, "signal": None})
            return
        if pid == 0:
            _become_trainer(Path(job), address, self._terms, self._server_only)
        self._jobs[pid] = job
        self.say({"started": job, "pid": pid})

    def reap(self) -> None:
        """Tell of every trainer that has ended."""
        while self._jobs:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            ended = {"exit_code": code, "signal": None} if code >= 0 else {"exit_code": code, "signal": -code}
            self.say({"ended": self._jobs.pop(pid), "pid": pid, **ended})

    def kill_all(self) -> None:
        """End every trainer and wait until it is gone."""
        for pid in self._jobs:
            os.kill(pid, signal.SIGKILL)
        for pid in self._jobs:
            os.waitpid(pid, 0)


def _become_trainer(job_path: Path, address: str, terms: _Terms, close: tuple[int, ...]) -> NoReturn:
    """The whole life of a forked trainer; does not return."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in close:
            os.close(descriptor)
        os.nice(terms.nice)
        torch.set_num_threads(terms.threads)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        channel = Channel(connection.sendall)
        watch_socket(channel, connection)
        watch_lifeline(terms.lifeline)
        code = run(JobFile.read(job_path), channel, prepared=terms.prepared)
    except BaseException:  # nothing may unwind into the server's own stack
        traceback.print_exc(file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _say(control: int, message: Mapping[str, object]) -> None:
    os.write(control, json.dumps(message).encode() + b"\n")


def _prepare(path: Path | None, control: int) -> Prepared | None:
    """Load the base that most jobs will want; None if there is none to load."""
    if path is None:
        return None
    count = gpu_count()
    device = torch.device("cuda" if count else "cpu")
    try:
        with pulse(partial(_say, control, {"loading": True})), gpus_left_alone(count):
            return prepare(path, fastest_dtype(device))
    except (BaseModelLoadError, RenderingError) as error:
        print(f"{path} is not held ready: {error}", file=sys.stderr)  # a job that wants it will say so
        return None


def _serve(server: _Server, requests: int, child_ended: int) -> None:
    """Fork on every line of `requests` until it ends; `child_ended` becomes readable on SIGCHLD."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        selector.register(child_ended, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                received = os.read(key.fd, 65536)
                if key.fd == child_ended:
                    server.reap()
                    continue
                if not received:
                    return
                *lines, pending = (pending + received).split(b"\n")
                for line in lines:
                    server.fork(line)


def _woken_by_children() -> tuple[int, int]:
    """A pipe that is written to when a child ends."""

    def ignore(number: int, frame: FrameType | None) -> None:
        """Without a handler of its own the signal would not reach the pipe."""

    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGCHLD, ignore)
    return read, write


def main() -> NoReturn:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m trainer.forkserver", description="Fork trainers.")
    parser.add_argument("socket_dir", type=Path, help="where the sockets of requests lie")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of a trainer; 0: all")
    parser.add_argument("--nice", type=int, default=5, help="niceness of a trainer (%(default)s)")
    parser.add_argument("--preload", type=Path, help="base model to hold in memory")
    arguments = parser.parse_args()
    control = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no control line
    torch.set_num_threads(1)
    lifeline, lifeline_end = os.pipe()
    child_ended, child_ended_end = _woken_by_children()
    terms = _Terms(
        prepared=_prepare(arguments.preload, control),
        threads=arguments.threads or len(os.sched_getaffinity(0)),
        nice=arguments.nice,
        lifeline=lifeline,
    )
    # Collections in children would touch, and so copy, every page of what is shared.
    gc.collect()
    gc.freeze()
    server = _Server(terms, control, (lifeline_end, child_ended, child_ended_end, sys.stdin.fileno()))
    server.say({"ready": True})
    _serve(server, sys.stdin.fileno(), child_ended)
    server.kill_all()
    os._exit(0)  # libraries' own endings only print complaints about each other


if __name__ == "__main__":
    main()
