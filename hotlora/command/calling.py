"""The client of a command, which Ctrl-C ends."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread, current_thread, main_thread
from types import FrameType

from hotlora import errors
from hotlora.client import Client


@contextmanager
def connected(address: str | None) -> Iterator[Client]:
    """A client of the service at `address`; None: where the environment says."""
    with Client(address) as client, ended_by_ctrl_c(client):
        yield client


@contextmanager
def ended_by_ctrl_c(client: Client) -> Iterator[None]:
    """Ctrl-C ends the block with KeyboardInterrupt, wherever it strikes.

    The exception alone is lost when the signal comes within one of gRPC's callbacks, which swallow it; so the
    client is closed too, by a thread, since the signal may have come while gRPC held a lock.
    """
    if current_thread() is not main_thread():  # which no signal reaches
        yield
        return
    interrupted = Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        Thread(target=client.close, daemon=True).start()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except (errors.HotloraError, ValueError):  # ValueError: gRPC's word for a call on a closed channel
        if not interrupted.is_set():
            raise
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)
