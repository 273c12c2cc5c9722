"""Evaluations in the registry: creation, the guarded moves between states, and reading.

As everything here: one transaction a method, one guarded write a change of state.
"""

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sqlalchemy import func, insert, select, true, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from service.changes import Changes
from service.errors import AlreadyExists, Conflict, HotloraError, NotFound, WrongState
from service.registry import cursors, datasets, versions
from service.registry.database import Database
from service.registry.rows import EvaluationRow, Page, VersionRow
from service.registry.states import EVALUATION_ENDED, EvaluationState, VersionState, evaluations_before
from service.registry.tables import adapters, evaluations, jobs
from service.registry.tables import versions as versions_table

_FIELDS = tuple(EvaluationRow.__dataclass_fields__)
_COLUMNS = [evaluations.c[name] for name in _FIELDS]


@dataclass(frozen=True, kw_only=True)
class NewEvaluation:
    """What is asked for."""

    adapter_id: str
    number: int
    dataset_id: str = ""
    """Empty: the rows that the version's job held out."""
    request_id: str = ""
    """Empty: not idempotent."""

    @property
    def digest(self) -> str:
        """Tells two requests apart."""
        return hashlib.sha256(f"{self.adapter_id}@{self.number} {self.dataset_id}".encode()).hexdigest()


class Evaluations:
    """The part of the registry that knows evaluations. Changes are told on `evaluations` and
    `evaluation/{id}`."""

    def __init__(self, *, database: Database, changes: Changes, clock: Callable[[], float]) -> None:
        self._database = database
        self._changes = changes
        self._clock = clock

    async def create(self, new: NewEvaluation) -> EvaluationRow:
        """Queue an evaluation. Idempotent by `new.request_id`.

        Raises NotFound (version, dataset), WrongState (version not ACTIVE), AlreadyExists (REQUEST_ID_USED).
        """
        async with self._database.write() as connection:
            row = await _create(connection, new, self._clock())
        return self._changed(row)

    async def refuse_version(self, adapter_id: str, number: int, dataset_id: str = "") -> None:
        """Raise NotFound or WrongState for a version that cannot be evaluated on the dataset; empty means the
        rows that its job held out."""
        async with self._database.read() as connection:
            _refuse_unknown_rows(
                await versions.active(connection, adapter_id, number, "be evaluated"), dataset_id
            )

    async def create_missing(self) -> list[EvaluationRow]:
        """Queue an evaluation for each ACTIVE version that has none yet."""
        async with self._database.read() as connection:
            lacking = await _without_evaluation(connection)
        if not lacking:
            return []
        async with self._database.write() as connection:
            made = [
                await _create(
                    connection,
                    NewEvaluation(adapter_id=row.adapter_id, number=row.number),
                    self._clock(),
                )
                for row in await _without_evaluation(connection)
            ]
        for row in made:
            self._changed(row)
            self._changes.notify(f"job/{row.job_id}")
        return made

    async def get(self, evaluation_id: str) -> EvaluationRow:
        """Raises NotFound."""
        async with self._database.read() as connection:
            return await _get(connection, evaluation_id)

    async def listing(
        self, *, limit: int = 50, cursor: str = "", adapter_id: str = "", number: int = 0
    ) -> Page[EvaluationRow]:
        """Newest first; an empty `adapter_id` means all, a `number` of 0 all of its versions. Raises
        InvalidRequest (field page_token)."""
        async with self._database.read() as connection:
            return await _listing(connection, limit, cursor, adapter_id, number)

    async def running(self) -> list[EvaluationRow]:
        """All RUNNING ones, whoever owns them: candidates for a rescue."""
        async with self._database.read() as connection:
            found = await connection.execute(
                select(*_COLUMNS).where(evaluations.c.state == EvaluationState.RUNNING)
            )
            return [_row(row) for row in found]

    async def claim(self, owner: str, base_models: Collection[str] | None = None) -> EvaluationRow | None:
        """Make the oldest QUEUED one of a version of one of `base_models` (None: of any) RUNNING for `owner`,
        with the next epoch; None: there is none."""
        async with self._database.write() as connection:
            now = self._clock()
            oldest = await connection.execute(
                select(evaluations.c.id)
                .join(adapters, adapters.c.id == evaluations.c.adapter_id)
                .where(
                    evaluations.c.state == EvaluationState.QUEUED,
                    true() if base_models is None else adapters.c.base_model.in_(base_models),
                )
                .order_by(evaluations.c.ordinal)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            evaluation_id = oldest.scalar_one_or_none()
            if evaluation_id is None:
                return None
            row = await _move(
                connection,
                evaluation_id,
                None,
                EvaluationState.RUNNING,
                epoch=evaluations.c.epoch + 1,
                owner=owner,
                heartbeat_time=now,
                start_time=func.coalesce(evaluations.c.start_time, now),
            )
        return self._changed(row)

    async def progress(self, row: EvaluationRow, done: int, total: int) -> EvaluationRow:
        """Say that the owner lives, and how far it is. Raises Conflict (fenced off), WrongState."""
        async with self._database.write() as connection:
            found = await connection.execute(
                update(evaluations)
                .where(
                    evaluations.c.id == row.id,
                    evaluations.c.epoch == row.epoch,
                    evaluations.c.state == EvaluationState.RUNNING,
                )
                .values(done_answers=done, total_answers=total, heartbeat_time=self._clock())
                .returning(*_COLUMNS)
            )
            changed = found.one_or_none()
            if changed is None:
                allowed = frozenset({EvaluationState.RUNNING})
                raise await _refusal(connection, row.id, row.epoch, allowed, "make progress")
        return self._changed(_row(changed))

    async def succeed(self, row: EvaluationRow, report: str) -> EvaluationRow:
        """RUNNING becomes SUCCEEDED with its report. Raises NotFound, Conflict (fenced off), WrongState."""
        return await self._end(row, EvaluationState.SUCCEEDED, report=report)

    async def fail(self, row: EvaluationRow, reason: str, message: str) -> EvaluationRow:
        """RUNNING becomes FAILED with a reason and a sentence. Raises as `succeed`."""
        return await self._end(row, EvaluationState.FAILED, failure_reason=reason, failure_message=message)

    async def requeue(self, row: EvaluationRow) -> EvaluationRow:
        """RUNNING becomes QUEUED with the next epoch. Raises as `succeed`."""
        async with self._database.write() as connection:
            moved = await _move(
                connection,
                row.id,
                row.epoch,
                EvaluationState.QUEUED,
                epoch=evaluations.c.epoch + 1,
                owner=None,
            )
        return self._changed(moved)

    async def _end(self, row: EvaluationRow, to: EvaluationState, **values: object) -> EvaluationRow:
        async with self._database.write() as connection:
            moved = await _move(
                connection, row.id, row.epoch, to, owner=None, end_time=self._clock(), **values
            )
        return self._changed(moved)

    def _changed(self, row: EvaluationRow) -> EvaluationRow:
        self._changes.notify("evaluations")
        self._changes.notify(f"evaluation/{row.id}")
        return row


async def _create(connection: AsyncConnection, new: NewEvaluation, now: float) -> EvaluationRow:
    known = await _of_request(connection, new)
    if known is not None:
        return known
    version = await versions.active(connection, new.adapter_id, new.number, "be evaluated")
    _refuse_unknown_rows(version, new.dataset_id)
    if new.dataset_id:
        await datasets.get(connection, new.dataset_id)
    dataset_id, is_own = (
        (new.dataset_id, False) if new.dataset_id else await _rows_of_job(connection, version)
    )
    earlier = await _count(connection, new)
    # No adapter's id has a dot, and what follows the last dash is a number: no two can be the same.
    evaluation_id = f"{new.adapter_id}-{new.number}" + (f".{earlier + 1}" if earlier else "")
    await connection.execute(
        insert(evaluations).values(
            id=evaluation_id,
            request_id=new.request_id or None,
            request_digest=new.digest,
            adapter_id=new.adapter_id,
            number=new.number,
            job_id=version.job_id,
            dataset_id=dataset_id,
            from_validation_split=is_own,
            state=EvaluationState.QUEUED,
            epoch=0,
            done_answers=0,
            total_answers=0,
            create_time=now,
        )
    )
    await connection.execute(
        update(jobs)
        .where(jobs.c.id == version.job_id, jobs.c.evaluation_id.is_(None))
        .values(evaluation_id=evaluation_id)
    )
    return await _get(connection, evaluation_id)


async def _rows_of_job(connection: AsyncConnection, version: VersionRow) -> tuple[str, bool]:
    """The dataset that a version's job wants it evaluated on, and whether that is what it was trained on."""
    found = await connection.execute(
        select(jobs.c.dataset_id, jobs.c.evaluation_dataset_id).where(jobs.c.id == version.job_id)
    )
    job = found.one()
    return job.evaluation_dataset_id or job.dataset_id, not job.evaluation_dataset_id


def _refuse_unknown_rows(version: VersionRow, dataset_id: str) -> None:
    if version.job_id is None and not dataset_id:
        raise WrongState(
            f"{version.model} was imported, and no job held out rows of it; name a dataset to evaluate it on",
            state=version.state,
            reason="VERSION_IMPORTED",
        )


async def _of_request(connection: AsyncConnection, new: NewEvaluation) -> EvaluationRow | None:
    if not new.request_id:
        return None
    found = await connection.execute(
        select(evaluations.c.request_digest, *_COLUMNS).where(evaluations.c.request_id == new.request_id)
    )
    row = found.one_or_none()
    if row is None:
        return None
    if row.request_digest != new.digest:
        raise AlreadyExists(
            "REQUEST_ID_USED",
            f"request_id {new.request_id!r} made evaluation {row.id!r} from another request; "
            "use a new request_id",
        )
    return _row(row)


async def _count(connection: AsyncConnection, new: NewEvaluation) -> int:
    found = await connection.execute(
        select(func.count())
        .select_from(evaluations)
        .where(evaluations.c.adapter_id == new.adapter_id, evaluations.c.number == new.number)
    )
    return found.scalar_one()


async def _without_evaluation(connection: AsyncConnection) -> list[VersionRow]:
    found = await connection.execute(
        select(versions_table.c.adapter_id, versions_table.c.number)
        .join(jobs, jobs.c.id == versions_table.c.job_id)
        .join(adapters, adapters.c.id == versions_table.c.adapter_id)
        .where(
            versions_table.c.state == VersionState.ACTIVE,
            jobs.c.evaluation_id.is_(None),
            adapters.c.delete_time.is_(None),
        )
        .order_by(versions_table.c.create_time)
    )
    return [await versions.get(connection, row.adapter_id, row.number) for row in found.all()]


async def _get(connection: AsyncConnection, evaluation_id: str) -> EvaluationRow:
    found = await connection.execute(select(*_COLUMNS).where(evaluations.c.id == evaluation_id))
    row = found.one_or_none()
    if row is None:
        raise NotFound("EVALUATION_NOT_FOUND", f"there is no evaluation {evaluation_id!r}")
    return _row(row)


async def _listing(
    connection: AsyncConnection, limit: int, cursor: str, adapter_id: str, number: int
) -> Page[EvaluationRow]:
    scope = f"evaluations of {adapter_id}@{number}"
    query = select(evaluations.c.ordinal, *_COLUMNS)
    if adapter_id:
        query = query.where(evaluations.c.adapter_id == adapter_id)
    if number:
        query = query.where(evaluations.c.number == number)
    last_seen = cursors.decode_number(scope, cursor)
    if last_seen is not None:
        query = query.where(evaluations.c.ordinal < last_seen)
    found = (await connection.execute(query.order_by(evaluations.c.ordinal.desc()).limit(limit + 1))).all()
    shown = found[:limit]
    return Page(
        rows=tuple(_row(row) for row in shown),
        next_cursor=cursors.encode(scope, shown[-1].ordinal) if len(found) > limit else "",
    )


async def _move(
    connection: AsyncConnection,
    evaluation_id: str,
    expected_epoch: int | None,
    to: EvaluationState,
    **values: object,
) -> EvaluationRow:
    """The guarded write of a state change; an `expected_epoch` that is None is not looked at."""
    allowed = evaluations_before(to)
    conditions = [evaluations.c.id == evaluation_id, evaluations.c.state.in_(allowed)]
    if expected_epoch is not None:
        conditions.append(evaluations.c.epoch == expected_epoch)
    changed = await connection.execute(
        update(evaluations).where(*conditions).values(state=to, **values).returning(*_COLUMNS)
    )
    row = changed.one_or_none()
    if row is None:
        raise await _refusal(connection, evaluation_id, expected_epoch, allowed, f"become {to}")
    return _row(row)


async def _refusal(
    connection: AsyncConnection,
    evaluation_id: str,
    epoch: int | None,
    allowed: frozenset[EvaluationState],
    action: str,
) -> HotloraError:
    """Why a guarded write changed no row."""
    row = await _get(connection, evaluation_id)
    if epoch is not None and row.epoch != epoch and row.state not in EVALUATION_ENDED:
        return Conflict(
            "FENCED_OFF",
            f"evaluation {row.id!r} is at epoch {row.epoch} ({row.state}); "
            f"epoch {epoch} may not write any more",
        )
    names = sorted(allowed)
    return WrongState(
        f"evaluation {row.id!r} is {row.state}; to {action} it must be {' or '.join(names)}",
        state=row.state,
        allowed=names,
        reason="EVALUATION_STATE",
    )


def _row(row: Row[tuple[object, ...]]) -> EvaluationRow:
    fields = {name: row._mapping[name] for name in _FIELDS}
    fields["state"] = EvaluationState(fields["state"])
    return EvaluationRow(**fields)
