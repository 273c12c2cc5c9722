"""A home belongs to one service at a time, which says in a locked file there who it is and where it listens.

The kernel drops the lock with the service, whatever that dies of. Standard library only: the service holds
its home, and `hotlora up` looks whether the service that answers is the one that it started.
"""

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_NAME: Final = "service.lock"


class HomeInUseError(OSError):
    """Another service has the home; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The service that has a home, or had it last."""

    pid: int
    parent_pid: int
    """The process that started it."""
    grpc_address: str
    """Where it listens; empty until it does."""


class Hold:
    """A context manager: inside, `directory` is this process's."""

    def __init__(self, directory: Path) -> None:
        """Raises HomeInUseError where another living process has it."""
        self._descriptor = os.open(directory / _NAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise HomeInUseError(
                f"{directory} is in use by another service{_described(holder(directory))}; end that one, or "
                "choose another home (HOTLORA_HOME)"
            ) from None
        self.listens("")

    def listens(self, grpc_address: str) -> None:
        """Say where callers find this process; empty: nowhere yet."""
        content = asdict(Holder(pid=os.getpid(), parent_pid=os.getppid(), grpc_address=grpc_address))
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(content).encode(), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def holder(directory: Path) -> Holder | None:
    """What the file says; None where it says nothing. A service that was killed has left its words."""
    try:
        fields = json.loads((directory / _NAME).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return Holder(**fields)


def _described(found: Holder | None) -> str:
    if found is None:
        return ""
    return f" (process {found.pid}{found.grpc_address and f', at {found.grpc_address}'})"
