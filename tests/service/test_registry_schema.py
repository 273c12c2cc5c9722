"""The database's schema: made by migrations alone, in one piece, and never older code on a newer one."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, event, text

from service.changes import Changes
from service.errors import DataLoss, Unavailable, WrongState
from service.registry import Imported, Registry, schema
from service.registry.database import Database
from service.registry.tables import metadata
from tests.service.registry_stage import dataset, new_job, open_registry, url

FILL_THE_DISK = """
import asyncio, resource, signal, sys
from service.changes import Changes
from service.errors import Exhausted
from service.registry import Registry
from tests.service.registry_stage import dataset, url
from pathlib import Path

async def main():
    async with Registry.open(url(Path(sys.argv[1])), changes=Changes()) as registry:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
        for number in range(10_000):
            try:
                await registry.create_dataset(dataset(f"d{number}"))
            except Exhausted as refused:
                print(number, refused.reason)
                assert len((await registry.list_datasets(limit=1000)).rows) == min(number, 1000)
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
                await registry.create_dataset(dataset("at-last"))
                return

asyncio.run(main())
"""


async def test_migrations_make_exactly_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    async with Registry.open(url(tmp_path), changes=Changes()):
        pass
    engine = create_engine(f"sqlite:///{tmp_path}/registry.db")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


async def test_the_database_is_durable_and_checks_its_references(tmp_path: Path) -> None:
    async with Database.open(url(tmp_path), 10.0) as database, database.read() as connection:
        pragmas = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        job = await registry.create_job(new_job())
    async with open_registry(tmp_path) as registry:
        assert await registry.get_job(job.id) == job


async def test_services_may_start_on_an_empty_database_at_once(tmp_path: Path) -> None:
    async def start(home: Path) -> None:
        async with Registry.open(url(home), changes=Changes()):
            pass

    for round_number in range(10):
        home = tmp_path / str(round_number)
        home.mkdir()
        await asyncio.gather(*(start(home) for _ in range(4)))


async def test_a_schema_of_a_newer_release_is_refused_by_name(tmp_path: Path) -> None:
    async with open_registry(tmp_path):
        pass
    database = sqlite3.connect(tmp_path / "registry.db")
    database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.commit()
    with pytest.raises(WrongState, match="9999") as refused:
        async with open_registry(tmp_path):
            pass
    assert refused.value.reason == "SCHEMA_TOO_NEW"
    assert database.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
    database.close()


async def test_a_database_that_another_process_locks_is_unavailable_and_then_works(tmp_path: Path) -> None:
    async with Registry.open(url(tmp_path), changes=Changes(), busy_timeout_seconds=0.05) as registry:
        other = sqlite3.connect(tmp_path / "registry.db")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable) as refused:
            await registry.create_dataset(dataset("one"))
        assert refused.value.retry_seconds > 0
        other.rollback()
        other.close()
        await registry.create_dataset(dataset("one"))


async def test_whoever_is_cancelled_within_a_statement_holds_up_no_later_write(tmp_path: Path) -> None:
    many = "SELECT 1 UNION ALL SELECT 2"
    begun = asyncio.Event()

    def notice(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement == many:
            begun.set()

    async def write(database: Database) -> None:
        async with database.write() as connection:
            await connection.execute(text("CREATE TABLE half_done (one)"))
            await connection.execute(text(many))

    async with Database.open(url(tmp_path), busy_timeout_seconds=0.5) as database, AsyncExitStack() as end:
        event.listen(Engine, "before_cursor_execute", notice)
        end.callback(event.remove, Engine, "before_cursor_execute", notice)
        writing = asyncio.create_task(write(database))
        await begun.wait()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await writing
        async with database.write() as connection:
            await connection.execute(text("CREATE TABLE half_done (other)"))
        assert cancelled.tb is not None


async def test_a_database_that_cannot_be_opened_is_away_and_not_a_fault(tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    with pytest.raises(Unavailable) as refused:
        async with Registry.open(url(tmp_path / "not mounted"), changes=Changes()):
            pass
    assert refused.value.reason == "DATABASE_AWAY"
    # The driver's thread ends a moment after its connection failed, and still wants this loop.
    for thread in set(threading.enumerate()) - threads:
        thread.join()


async def test_more_readers_than_there_are_connections_are_told_to_come_again(tmp_path: Path) -> None:
    async with Database.open(url(tmp_path), 0.05) as database, AsyncExitStack() as readers:
        with pytest.raises(Unavailable) as refused:
            for _ in range(100):
                await readers.enter_async_context(database.read())
        assert refused.value.reason == "DATABASE_BUSY"


async def test_a_file_that_is_no_database_is_data_loss(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"not a database at all" * 1000)
    with pytest.raises(DataLoss):
        async with open_registry(tmp_path):
            pass


def test_a_full_disk_refuses_writes_and_harms_nothing(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.stdout.endswith("DISK_FULL\n"), ran.stderr
    database = sqlite3.connect(tmp_path / "registry.db")
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert database.execute("SELECT count(*) FROM datasets WHERE id = 'at-last'").fetchone() == (1,)
    database.close()


async def test_versions_keep_what_refers_to_them_when_they_may_have_no_job(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        schema.upgrade(connection, "0009")
    engine.dispose()
    database = sqlite3.connect(path, isolation_level=None)
    for row in (
        "datasets (id, display_name, size_bytes, sha256, rows, tokens, longest_row_tokens, create_time, kind)"
        " VALUES ('d', '', 1, '', 1, 1, 1, 0, 'c')",
        "adapters VALUES ('a', 'base', 1, 0, NULL)",
        "jobs (id, request_digest, base_model, dataset_id, adapter_id, technique, hyperparameters, state,"
        " attempt, crashes, epoch, last_sequence, create_time)"
        " VALUES ('j', '', 'base', 'd', 'a', 'lora', '{}', 'SUCCEEDED', 1, 0, 1, 0, 0)",
        "versions VALUES ('a', 1, 'ACTIVE', NULL, NULL, 'j', 'lora', 4, 'x', 1, NULL, 0, NULL, 1)",
        "version_changes VALUES ('a', 1, 1, 0, 'PENDING', NULL, NULL)",
        "evaluations (id, request_digest, adapter_id, number, job_id, dataset_id, from_validation_split,"
        " state, epoch, done_answers, total_answers, create_time)"
        " VALUES ('e', '', 'a', 1, 'j', 'd', 1, 'QUEUED', 0, 0, 0, 0)",
    ):
        database.execute(f"INSERT INTO {row}")
    with pytest.raises(sqlite3.IntegrityError):
        database.execute("UPDATE versions SET job_id = NULL")
    database.close()

    async with open_registry(tmp_path) as registry:
        assert (await registry.get_version("a", 1)).job_id == "j"
        assert len(await registry.version_changes("a", 1)) == 1
        assert (await registry.evaluations.get("e")).model == "a@1"
        imported = Imported(adapter_id="a", base_model="base", rank=4, digest="y", size_bytes=1)
        assert (await registry.import_version(imported)).job_id is None
        assert (await registry.import_version(replace(imported, digest="z"))).number == 3
        assert (await registry.evaluations.get("e")).job_id == "j"
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    database.close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_whoever_is_cancelled_while_a_connection_opens_leaves_nothing_at_work(tmp_path: Path) -> None:
    async def look(database: Database) -> None:
        async with database.read():
            pass

    async def cancelled_after(steps: int) -> None:
        async with Database.open(url(tmp_path), 10.0) as database, database.read():
            looking = asyncio.create_task(look(database))
            for _ in range(steps):
                await asyncio.sleep(0)
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    threads = set(threading.enumerate())
    for steps in range(30):
        asyncio.run(cancelled_after(steps))
    # A thread that finds its event loop closed fails, and this test with it.
    for thread in set(threading.enumerate()) - threads:
        thread.join()
