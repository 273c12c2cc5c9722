"""Engines behind a host name that stands for many: looked up again and again, each address an engine.

A name that was looked up tells which engines there should be; one whose lookup failed tells nothing, and
changes nothing. Knows nothing of how an engine is asked: `attach` makes one from a URL.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection
from typing import Final
from urllib.parse import urlsplit

import structlog

from service.changes import Changes
from service.engine.face import Engine, EngineState
from service.settings import without_credentials

_log = structlog.get_logger(__name__)

Resolver = Callable[[str, int], Awaitable[Collection[str]]]
"""Gives the addresses of a host name, of which a port is wanted. Raises OSError."""

MAX_ADDRESSES: Final = 64
"""Of one name. A resolver that gives thousands is wrong, and each would be asked every few seconds."""


async def resolve(host: str, port: int) -> Collection[str]:
    """The addresses that this machine's resolver gives. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return {str(address[0]) for *_, address in found}


class Discovery:
    """See the module. Belongs to one event loop."""

    def __init__(
        self,
        *,
        url: str,
        attach: Callable[[str], Engine],
        changes: Changes,
        resolver: Resolver = resolve,
        period_seconds: float = 10.0,
        limit_seconds: float = 5.0,
    ) -> None:
        """`url` is http://HOST:PORT, perhaps with credentials. HOST is looked up every `period_seconds`; a
        lookup that takes longer than `limit_seconds` is told of, and waited for: no other begins meanwhile.
        """
        parts = urlsplit(url)
        self._parts = parts
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._name = without_credentials(url)
        self._attach = attach
        self._changes = changes
        self._resolver = resolver
        self._period_seconds = period_seconds
        self._limit_seconds = limit_seconds
        self._engines: dict[str, Engine] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._lookup: asyncio.Task[Collection[str]] | None = None
        self._problem: str | None = "it was not looked up yet"

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Those that are known now, by address."""
        return tuple(self._engines[url] for url in sorted(self._engines))

    @property
    def problem(self) -> str | None:
        """What is wrong with the name, in one sentence for a person; None: nothing."""
        return None if self._problem is None else f"{self._name}: {self._problem}"

    async def run(self) -> None:
        """Look up and keep the engines going until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await self._look(tasks)
                    await asyncio.sleep(self._period_seconds)
        finally:
            if self._lookup is not None:
                self._lookup.cancel()

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        """Look once, and follow what was found."""
        # One that takes long holds a thread of the pool that all disk work shares: it must not become many.
        lookup = self._lookup = self._lookup or asyncio.ensure_future(self._resolved())
        await asyncio.wait({lookup}, timeout=self._limit_seconds)
        if not lookup.done():
            self._tell(f"no answer to its lookup within {self._limit_seconds:g} s")
            return
        self._lookup = None
        try:
            addresses = sorted(lookup.result())
        except (OSError, UnicodeError) as error:  # the latter for what cannot be a host name
            said = error.strerror if isinstance(error, OSError) else None
            self._tell(f"its lookup failed ({said or type(error).__name__})")
            return
        if not addresses:
            self._tell("its lookup gave no address")
            return
        crowd = len(addresses) > MAX_ADDRESSES
        self._tell(f"more than {MAX_ADDRESSES} addresses, of which the rest is left out" if crowd else None)
        await self._follow([self._url(address) for address in addresses[:MAX_ADDRESSES]], tasks)

    async def _resolved(self) -> Collection[str]:
        return await self._resolver(self._host, self._port)

    async def _follow(self, urls: Collection[str], tasks: asyncio.TaskGroup) -> None:
        for url in urls:
            if url not in self._engines:
                engine = self._engines[url] = self._attach(url)
                self._tasks[url] = tasks.create_task(engine.run())
                _log.info("an engine was found", name=self._name, engine=engine.name)
                self._changes.notify("engine")
        for url in [url for url in self._engines if url not in urls]:
            # Names are taken from an address before its engine ends, which gives its answers to their end.
            if self._engines[url].state is not EngineState.READY:
                await self._drop(url)

    async def _drop(self, url: str) -> None:
        engine, task = self._engines.pop(url), self._tasks.pop(url)
        task.cancel()
        await asyncio.wait([task])
        _log.info("an engine is gone", name=self._name, engine=engine.name)
        self._changes.notify("engine")

    def _url(self, address: str) -> str:
        host = f"[{address}]" if ":" in address else address
        credentials = self._parts.netloc.rpartition("@")[0]
        netloc = f"{credentials}@{host}:{self._port}" if credentials else f"{host}:{self._port}"
        return self._parts._replace(netloc=netloc).geturl()

    def _tell(self, problem: str | None) -> None:
        if problem != self._problem:
            _log.info("engines behind a name", name=self._name, problem=problem)
            self._problem = problem
            self._changes.notify("engine")
