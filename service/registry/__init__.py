"""The registry: the only durable truth about datasets, jobs, events, adapters and versions.

All SQL of the service is in this package. Each method is one transaction; each change of state is one guarded
write with its event in the same transaction, and is announced on `Changes` after the commit. The registry
knows nothing of files, processes, engines or the wire.

Any method may raise Unavailable (database locked for long), Exhausted (disk full) or DataLoss (database
damaged).
"""

import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager

from service.changes import Changes
from service.registry import adapters, datasets, events, jobs, pointing, versions, wishes
from service.registry.aliases import Aliases, Wish
from service.registry.answers import Answers
from service.registry.database import BUSY_TIMEOUT_SECONDS, Database
from service.registry.evaluations import Evaluations, NewEvaluation
from service.registry.jobs import NewJob
from service.registry.meanings import Meanings
from service.registry.rows import (
    AdapterRow,
    AliasChange,
    AliasChangeKind,
    AliasRow,
    DatasetRow,
    EvaluationRow,
    EventRow,
    JobRow,
    Page,
    ProgressEvent,
    SettingWarning,
    Share,
    StateChanged,
    Verification,
    VersionChange,
    VersionRow,
    alias_model,
)
from service.registry.states import (
    EVALUATION_TRANSITIONS,
    JOB_TRANSITIONS,
    VERSION_TRANSITIONS,
    EvaluationState,
    JobState,
    VersionState,
)
from service.registry.versions import Imported
from trainer.events import Published

__all__ = [
    "EVALUATION_TRANSITIONS",
    "JOB_TRANSITIONS",
    "VERSION_TRANSITIONS",
    "AdapterRow",
    "AliasChange",
    "AliasChangeKind",
    "AliasRow",
    "Aliases",
    "DatasetRow",
    "EvaluationRow",
    "EvaluationState",
    "Evaluations",
    "EventRow",
    "Imported",
    "JobRow",
    "JobState",
    "NewEvaluation",
    "NewJob",
    "Page",
    "ProgressEvent",
    "Registry",
    "SettingWarning",
    "Share",
    "StateChanged",
    "Verification",
    "VersionChange",
    "VersionRow",
    "VersionState",
    "Wish",
    "alias_model",
]


def _random_id() -> str:
    return secrets.token_hex(8)


class Registry:
    """See the module. Made by `Registry.open`."""

    def __init__(
        self,
        *,
        database: Database,
        changes: Changes,
        clock: Callable[[], float],
        ids: Callable[[], str],
        max_queued_jobs: int,
    ) -> None:
        self._database = database
        self._changes = changes
        self._clock = clock
        self._ids = ids
        self._max_queued_jobs = max_queued_jobs
        self._meanings = Meanings(database)
        self.evaluations = Evaluations(database=database, changes=changes, clock=clock)
        self.aliases = Aliases(database=database, changes=changes, clock=clock)
        self.answers = Answers(database=database)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        database_url: str,
        *,
        changes: Changes,
        clock: Callable[[], float] = time.time,
        ids: Callable[[], str] = _random_id,
        max_queued_jobs: int = 100,
        busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
    ) -> AsyncIterator["Registry"]:
        """Open the database, bring its schema up to date, and close it at the end.

        `clock` gives seconds since the epoch, `ids` never the same text twice. Raises WrongState
        (SCHEMA_TOO_NEW) if a newer release wrote the database.
        """
        async with Database.open(database_url, busy_timeout_seconds) as database:
            yield cls(
                database=database, changes=changes, clock=clock, ids=ids, max_queued_jobs=max_queued_jobs
            )

    # Datasets

    async def create_dataset(self, row: DatasetRow) -> DatasetRow:
        """Record a published file. Raises AlreadyExists (the id is or was taken)."""
        async with self._database.write() as connection:
            await datasets.insert(connection, row)
        return row

    async def dataset_id_taken(self, dataset_id: str) -> bool:
        """Whether the id is or was in use."""
        async with self._database.read() as connection:
            return await datasets.id_taken(connection, dataset_id)

    async def get_dataset(self, dataset_id: str) -> DatasetRow:
        """Raises NotFound."""
        async with self._database.read() as connection:
            return await datasets.get(connection, dataset_id)

    async def list_datasets(self, *, limit: int = 50, cursor: str = "") -> Page[DatasetRow]:
        """Newest first. Raises InvalidRequest (field page_token: a cursor that is not ours)."""
        async with self._database.read() as connection:
            return await datasets.listing(connection, limit, cursor)

    async def delete_dataset(self, dataset_id: str) -> None:
        """Forget a dataset; its id stays taken and its file is the caller's to remove.

        Raises NotFound, WrongState (DATASET_IN_USE: a job that has not ended needs it).
        """
        async with self._database.write() as connection:
            await datasets.delete(connection, dataset_id, self._clock())

    # Jobs

    async def create_job(self, new: NewJob) -> JobRow:
        """Queue a job, and make its adapter if there is none.

        Idempotent by `new.request_id`: the same digest again returns the same job. Raises AlreadyExists
        (REQUEST_ID_USED, ADAPTER_ID_USED, OTHER_BASE_MODEL), NotFound (dataset), Exhausted (QUEUE_FULL).
        """
        async with self._database.write() as connection:
            job = await jobs.create(connection, new, self._ids(), self._clock(), self._max_queued_jobs)
        return self._job_changed(job)

    async def refuse_adapter_id(self, adapter_id: str, base_model: str) -> None:
        """Raise AlreadyExists (as `create_job`) for a name that a job of this base cannot train."""
        async with self._database.read() as connection:
            await adapters.exists(connection, adapter_id, base_model)

    async def job_of_request(self, request_id: str, request_digest: str) -> JobRow | None:
        """The job that this request made; None if it made none yet, or has no id. Raises AlreadyExists."""
        async with self._database.read() as connection:
            return await jobs.of_request(connection, request_id, request_digest)

    async def get_job(self, job_id: str) -> JobRow:
        """Raises NotFound."""
        async with self._database.read() as connection:
            return await jobs.get(connection, job_id)

    async def lineage(self, job_id: str) -> tuple[JobRow, ...]:
        """The job, the one that made the version it started from, and so on, deleted adapters' too. Raises
        NotFound."""
        async with self._database.read() as connection:
            return await jobs.lineage(connection, job_id)

    async def list_jobs(
        self,
        *,
        limit: int = 50,
        cursor: str = "",
        states: Collection[JobState] = (),
        adapter_id: str = "",
    ) -> Page[JobRow]:
        """Newest first; no states and no adapter mean all. Raises InvalidRequest (field page_token)."""
        async with self._database.read() as connection:
            return await jobs.listing(connection, limit, cursor, states, adapter_id)

    async def request_cancel(self, job_id: str) -> JobRow:
        """QUEUED and PAUSED become CANCELLED, RUNNING and PAUSING CANCELLING; both of these stay as they are.

        Raises NotFound, WrongState (SUCCEEDED or FAILED).
        """
        async with self._database.write() as connection:
            job = await wishes.request_cancel(connection, job_id, self._clock())
        return self._job_changed(job)

    async def request_pause(self, job_id: str) -> JobRow:
        """QUEUED becomes PAUSED, RUNNING becomes PAUSING; both of these stay. Raises NotFound, WrongState."""
        async with self._database.write() as connection:
            job = await wishes.request_pause(connection, job_id, self._clock())
        return self._job_changed(job)

    async def request_resume(self, job_id: str) -> JobRow:
        """PAUSED becomes QUEUED; QUEUED and RUNNING stay. Raises NotFound, WrongState."""
        async with self._database.write() as connection:
            job = await wishes.request_resume(connection, job_id, self._clock())
        return self._job_changed(job)

    async def events_after(self, job_id: str, sequence: int, limit: int = 500) -> list[EventRow]:
        """Events with a higher sequence than `sequence`, in order, at most `limit`. Raises NotFound."""
        async with self._database.read() as connection:
            await jobs.get(connection, job_id)
            return await events.after(connection, job_id, sequence, limit)

    async def events_of(self, job_id: str, kinds: Collection[str]) -> list[EventRow]:
        """All its events of these kinds, in order. Raises NotFound."""
        async with self._database.read() as connection:
            await jobs.get(connection, job_id)
            return await events.of_kinds(connection, job_id, kinds)

    # Jobs, for their owner

    async def claim_next_job(self, owner: str, base_models: Collection[str] | None = None) -> JobRow | None:
        """Make the oldest QUEUED job of one of `base_models` (None: of any) RUNNING for `owner`, with the
        next attempt and epoch; None: no job."""
        async with self._database.write() as connection:
            job = await jobs.claim(connection, owner, self._clock(), base_models)
        return None if job is None else self._job_changed(job)

    async def heartbeat(self, job_id: str, owner: str, epoch: int) -> JobRow:
        """Say that the owner lives, and read the job. Raises NotFound, Conflict (fenced off), WrongState."""
        async with self._database.write() as connection:
            return await jobs.heartbeat(connection, job_id, owner, epoch, self._clock())

    async def append_event(self, job_id: str, epoch: int, event: ProgressEvent) -> EventRow:
        """Record what the trainer said. Raises NotFound, Conflict (fenced off), WrongState (not owned)."""
        async with self._database.write() as connection:
            row = await jobs.append_event(connection, job_id, epoch, event)
        self._changes.notify(f"job/{job_id}")
        return row

    async def succeed_job(self, job_id: str, epoch: int, published: Published) -> VersionRow:
        """End a job well: its artifact becomes the adapter's next version, PENDING, in the same transaction.

        Raises NotFound, Conflict (fenced off), WrongState (not RUNNING, CANCELLING or PAUSING).
        """
        async with self._database.write() as connection:
            job, version = await jobs.succeed(connection, job_id, epoch, published, self._clock())
        self._job_changed(job)
        return self._version_changed(version)

    async def fail_job(self, job_id: str, epoch: int, reason: str, message: str) -> JobRow:
        """End a job badly, with a reason and a sentence. Raises as `succeed_job`."""
        async with self._database.write() as connection:
            job = await jobs.fail(connection, job_id, epoch, reason, message, self._clock())
        return self._job_changed(job)

    async def cancel_job(self, job_id: str, epoch: int) -> JobRow:
        """CANCELLING becomes CANCELLED: trainer gone, nothing published. Raises as `succeed_job`."""
        async with self._database.write() as connection:
            job = await jobs.cancel(connection, job_id, epoch, self._clock())
        return self._job_changed(job)

    async def pause_job(self, job_id: str, epoch: int) -> JobRow:
        """PAUSING becomes PAUSED with the next epoch: trainer gone. Raises as `succeed_job`."""
        async with self._database.write() as connection:
            job = await jobs.pause(connection, job_id, epoch, self._clock())
        return self._job_changed(job)

    async def requeue_job(
        self, job_id: str, epoch: int, *, crash: tuple[str, str] | None = None, crashes: int = 1
    ) -> JobRow:
        """RUNNING becomes QUEUED with the next epoch. `crash` (reason, message) is what ended the attempt,
        `crashes` what then stands against the job; without a crash it stays.

        Raises as `succeed_job`.
        """
        async with self._database.write() as connection:
            job = await jobs.requeue(connection, job_id, epoch, crash, crashes, self._clock())
        return self._job_changed(job)

    async def owned_jobs(self) -> list[JobRow]:
        """All RUNNING, CANCELLING and PAUSING jobs, whoever owns them: candidates for a rescue."""
        async with self._database.read() as connection:
            return await jobs.owned(connection)

    async def unfinished_job_counts(self) -> dict[JobState, int]:
        """How many jobs there are in each state that is not an end."""
        async with self._database.read() as connection:
            return await jobs.unfinished_counts(connection)

    async def unfinished_job_ids(self) -> frozenset[str]:
        """Jobs that have not ended: their files must stay."""
        async with self._database.read() as connection:
            return await jobs.unfinished_ids(connection)

    async def registered_digests(self) -> frozenset[str]:
        """Artifacts that some version, retired ones included, stands on."""
        async with self._database.read() as connection:
            return await versions.digests(connection)

    # Adapters and versions

    async def get_adapter(self, adapter_id: str) -> AdapterRow:
        """Raises NotFound."""
        async with self._database.read() as connection:
            return await adapters.get(connection, adapter_id)

    async def base_model_of(self, adapter_id: str) -> str:
        """The base model of an adapter, deleted or not; empty where there never was one."""
        async with self._database.read() as connection:
            return await adapters.base_model_of(connection, adapter_id)

    async def bases_of_adapters(self) -> Mapping[str, str]:
        """The base models of all adapters that are not deleted, by the adapters' ids."""
        async with self._database.read() as connection:
            return await adapters.bases(connection)

    async def list_adapters(self, *, limit: int = 50, cursor: str = "") -> Page[AdapterRow]:
        """By name. Raises InvalidRequest (field page_token)."""
        async with self._database.read() as connection:
            return await adapters.listing(connection, limit, cursor)

    async def delete_adapter(self, adapter_id: str) -> None:
        """Retire all versions and forget the adapter; its id stays taken.

        Raises NotFound, WrongState (ADAPTER_IN_USE: a job that has not ended is training it).
        """
        async with self._database.write() as connection:
            retiring = await adapters.delete(connection, adapter_id, self._clock())
        for version in retiring:
            self._version_changed(version)
        self._changes.notify("versions")

    async def get_version(self, adapter_id: str, number: int) -> VersionRow:
        """Raises NotFound, also when the adapter is deleted."""
        async with self._database.read() as connection:
            return await versions.get(connection, adapter_id, number)

    async def list_versions(self, adapter_id: str, *, limit: int = 50, cursor: str = "") -> Page[VersionRow]:
        """Newest first. Raises NotFound (adapter), InvalidRequest (field page_token)."""
        async with self._database.read() as connection:
            await adapters.get(connection, adapter_id)
            return await versions.listing(connection, adapter_id, limit, cursor)

    async def all_versions(self, states: Collection[VersionState]) -> list[VersionRow]:
        """Versions in these states, those of deleted adapters included, by adapter and number."""
        async with self._database.read() as connection:
            return await versions.in_states(connection, states)

    async def deleted_versions(self) -> list[VersionRow]:
        """RETIRED and FAILED versions of deleted adapters: files may go once no live engine knows them."""
        async with self._database.read() as connection:
            return await versions.of_deleted_adapters(connection)

    async def version_changes(self, adapter_id: str, number: int) -> list[VersionChange]:
        """Every state a version was in, oldest first."""
        async with self._database.read() as connection:
            return await versions.history(connection, adapter_id, number)

    async def move_version(
        self,
        row: VersionRow,
        to: VersionState,
        *,
        failure: tuple[str, str] | None = None,
        verification: Verification | None = None,
    ) -> VersionRow:
        """Move a version from the state in `row` to `to`; `failure` is (reason, message), only with FAILED.

        A verification that is None leaves the latest one. Raises Conflict (somebody moved it since `row` was
        read), WrongState (no such transition).
        """
        async with self._database.write() as connection:
            version = await versions.move(
                connection, row, to, self._clock(), failure=failure, verification=verification
            )
        return self._version_changed(version)

    async def import_version(self, imported: Imported) -> VersionRow:
        """What was published becomes the adapter's next version, PENDING; the adapter is made if there is
        none. Raises AlreadyExists (ADAPTER_ID_USED, OTHER_BASE_MODEL)."""
        async with self._database.write() as connection:
            now = self._clock()
            await adapters.ensure(connection, imported.adapter_id, imported.base_model, now)
            version = await versions.create_imported(connection, imported, now)
        return self._version_changed(version)

    async def request_load(self, adapter_id: str, number: int) -> VersionRow:
        """RETIRED, FAILED become PENDING; PENDING, VERIFYING, ACTIVE stay. Raises NotFound, WrongState."""
        async with self._database.write() as connection:
            version = await versions.request_load(connection, adapter_id, number, self._clock())
        return self._version_changed(version)

    async def request_unload(self, adapter_id: str, number: int) -> VersionRow:
        """ACTIVE becomes RETIRING; RETIRING and RETIRED stay. Raises NotFound, WrongState (VERSION_STATE;
        VERSION_HAS_TRAFFIC: an alias points at it)."""
        async with self._database.write() as connection:
            await pointing.refuse_pointed_at(connection, adapter_id, number, "unloaded")
            version = await versions.request_unload(connection, adapter_id, number, self._clock())
        return self._version_changed(version)

    async def resolve_model(
        self, name: str, place: float = 0.0, *, is_able: Callable[[VersionRow], bool] = lambda _: True
    ) -> VersionRow:
        """The ACTIVE version that a name means: `adapter@number`, `adapter@alias`, or `adapter` (its alias
        `default`, and without one its newest ACTIVE version). Where an alias has several, `place` (0 to 1, 1
        excluded) among all requests decides, of those alone that are `is_able`, if any is.

        Raises NotFound, WrongState (VERSION_NOT_ACTIVE, NO_ACTIVE_VERSION). Base models are not known here.
        """
        return await self._meanings.resolve(name, place, is_able)

    def _job_changed(self, job: JobRow) -> JobRow:
        self._changes.notify("jobs")
        self._changes.notify(f"job/{job.id}")
        return job

    def _version_changed(self, version: VersionRow) -> VersionRow:
        self._changes.notify("versions")
        self._changes.notify(f"version/{version.model}")
        return version
