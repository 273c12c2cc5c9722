"""The connection to the database: transactions, pragmas, schema, and what driver errors mean.

Knows no table.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial

import aiosqlite
from sqlalchemy import Connection, event, func, select
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection
from sqlalchemy.exc import DatabaseError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from service.errors import DataLoss, Exhausted, Unavailable
from service.registry.schema import upgrade

BUSY_TIMEOUT_SECONDS = 10.0
"""How long a statement waits for another process's write, and a transaction for a connection; transactions
here take milliseconds."""

_WAL_RETRY_SECONDS = 0.01

_WRITERS_LOCK = 0x40714C0A
"""Number of the advisory lock that writers take on PostgreSQL; any that nobody else uses there."""


class Database:
    """An open database with the newest schema. Made by `Database.open`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._watcher: aiosqlite.Connection | None = None
        self._writer = engine.execution_options(writes=True)
        # SQLite has one writer: queueing here is fair and instant, its own busy wait is neither.
        self._turn = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, busy_timeout_seconds: float) -> AsyncIterator["Database"]:
        """Connect, migrate, and disconnect at the end."""
        engine = create_async_engine(url, pool_timeout=busy_timeout_seconds)
        if engine.dialect.name == "sqlite":
            prepare = partial(_prepare_sqlite, busy_timeout_seconds)
            event.listen(engine.sync_engine, "connect", prepare)
            event.listen(engine.sync_engine, "begin", _begin_sqlite)
            event.listen(engine.sync_engine, "invalidate", _release_sqlite)
        try:
            database = cls(engine)
            async with database.write() as connection:
                await connection.run_sync(upgrade)
            async with _watching(engine) as database._watcher:
                yield database
        finally:
            await engine.dispose()

    async def stamp(self) -> int | None:
        """Another number than at the last call where anybody, here or in another process, has committed
        anything since; None where the database does not tell."""
        if self._watcher is None:
            return None
        try:
            ((version,),) = await self._watcher.execute_fetchall("PRAGMA data_version")
        except sqlite3.Error:
            return None  # who reads now is told what is the matter
        return int(version)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one moment and changes nothing."""
        with _translated():
            async with _begun(self._engine) as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that holds the write lock from its first moment; commits at the end."""
        with _translated():
            async with self._turn, _begun(self._writer) as connection:
                if connection.dialect.name == "postgresql":
                    # What BEGIN IMMEDIATE is to SQLite: writers one after the other, each seeing all before.
                    await connection.execute(select(func.pg_advisory_xact_lock(_WRITERS_LOCK)))
                yield connection


@asynccontextmanager
async def _watching(engine: AsyncEngine) -> AsyncIterator[aiosqlite.Connection | None]:
    """A connection for `Database.stamp`, which counts the commits of all others to the file:
    https://sqlite.org/pragma.html#pragma_data_version"""
    path = engine.url.database
    if engine.dialect.name != "sqlite" or path is None:
        yield None
        return
    async with aiosqlite.connect(path) as connection:
        yield connection


@asynccontextmanager
async def _begun(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction, which ends at the end.

    Whoever is cancelled while it begins waits until it has: a connection of SQLite that is left while it
    opens works on in its thread, and tells what came of it to an event loop that may have ended by then.
    """
    async with AsyncExitStack() as stack:
        beginning = asyncio.create_task(stack.enter_async_context(engine.begin()))
        try:
            connection = await asyncio.shield(beginning)
        except asyncio.CancelledError:
            await asyncio.gather(beginning, return_exceptions=True)
            raise
        yield connection


def _prepare_sqlite(
    busy_timeout_seconds: float, connection: AsyncAdapt_aiosqlite_connection, _entry: ConnectionPoolEntry
) -> None:
    # The driver's own way to begin is deferred, and would fail under two writers; see _begin_sqlite.
    connection.isolation_level = None
    connection.run_async(partial(_set_pragmas, busy_timeout_seconds))


async def _set_pragmas(busy_timeout_seconds: float, connection: aiosqlite.Connection) -> None:
    await connection.execute(f"PRAGMA busy_timeout = {int(busy_timeout_seconds * 1000)}")
    await _enter_wal(busy_timeout_seconds, connection)
    await connection.execute("PRAGMA synchronous = FULL")
    await connection.execute("PRAGMA foreign_keys = ON")


async def _enter_wal(busy_timeout_seconds: float, connection: aiosqlite.Connection) -> None:
    """Turn the write-ahead log on; a file keeps it, so only the first connections to a new one ever wait."""
    deadline = time.monotonic() + busy_timeout_seconds
    while True:
        try:
            await connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # Of two that change a file's mode at once, SQLite refuses one without the busy timeout, since
            # each waiting for the other would never end: https://sqlite.org/c3ref/busy_handler.html
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            await asyncio.sleep(_WAL_RETRY_SECONDS)


def _begin_sqlite(connection: Connection) -> None:
    # Read-then-update under a deferred BEGIN claims jobs twice or ends in SQLITE_BUSY.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _release_sqlite(
    connection: AsyncAdapt_aiosqlite_connection, _entry: ConnectionPoolEntry, _error: BaseException | None
) -> None:
    """Give up a connection's lock before it is closed, as it is where somebody is cancelled within a
    statement.

    Closing is not enough: SQLite keeps a connection, and what it locks, until its last statement is gone
    (https://sqlite.org/c3ref/close.html), and the statement lives as long as the traceback of whoever was
    cancelled.
    """
    # What fails here, or is cancelled again, is closed next all the same.
    with suppress(sqlite3.Error, ValueError, asyncio.CancelledError):
        connection.run_async(lambda driver: asyncio.shield(driver.rollback()))


@contextmanager
def _translated() -> Iterator[None]:
    """Give driver errors that a caller can do something about our own types."""
    try:
        yield
    except PoolTimeoutError as error:
        raise Unavailable(
            "DATABASE_BUSY", "the registry has too many readers; try again", retry_seconds=1.0
        ) from error
    except DBAPIError as error:
        code = error.orig.sqlite_errorcode & 0xFF if isinstance(error.orig, sqlite3.Error) else None
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Unavailable(
                "DATABASE_BUSY", "the registry is busy with another process; try again", retry_seconds=1.0
            ) from error
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise Exhausted(
                "DISK_FULL", "the registry cannot be written: free space on its disk, then try again"
            ) from error
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise Unavailable(
                "DATABASE_AWAY",
                "the registry's database file cannot be opened or written now; try again",
                retry_seconds=2.0,
            ) from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise DataLoss("REGISTRY_DAMAGED", "the registry's database file is damaged") from error
        if isinstance(error, DatabaseError) and error.connection_invalidated:
            raise Unavailable(
                "DATABASE_AWAY", "the registry's database does not answer; try again", retry_seconds=2.0
            ) from error
        raise
