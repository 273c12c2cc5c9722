"""A wire between caller and service that breaks when a test says so."""

import asyncio
import contextlib
import socket
from types import TracebackType
from typing import Self

from tests.doubles.listening import accept_no_more


class Proxy:
    """Passes bytes on, both ways. Use it as an async context manager, on one loop."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._open: set[asyncio.StreamWriter] = set()
        self._silent: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._server: asyncio.Server | None = None
        self._came = asyncio.Event()
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.connections = 0
        """How many callers came, those that were turned away included."""
        self.turned_away = 0
        """So many of the next callers are cut off at once."""
        self.greets_after_seconds = 0.0
        """What a caller waits for the service's first word, as on a busy machine."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, sock=self._listening)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        await accept_no_more(self._listening)
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks)

    async def cut_until_back(self) -> None:
        """Break every connection, and wait until somebody comes again."""
        self._came.clear()
        self.cut()
        await self._came.wait()

    def cut(self) -> None:
        """Break every connection there is; new ones are taken."""
        for writer in self._open:
            writer.transport.abort()

    async def fall_silent(self) -> None:
        """Let no byte through any more on the wires there are, without breaking them."""
        self._silent |= self._open

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.turned_away:
            self.turned_away -= 1
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        await asyncio.sleep(self.greets_after_seconds)
        try:
            service_reader, service_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, service_writer}
        self._open |= ends
        self._came.set()
        try:
            both_ways = (self._pass_on(reader, service_writer), self._pass_on(service_reader, writer))
            await asyncio.gather(*both_ways)
        finally:
            self._open -= ends
            self._silent -= ends
            self._tasks.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while received := await reader.read(65_536):
                if writer not in self._silent:
                    writer.write(received)
                    await writer.drain()
        writer.transport.abort()
