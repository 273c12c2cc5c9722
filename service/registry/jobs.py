"""SQL for tuning jobs: creation, the guarded moves between states, and reading.

Every move is one UPDATE whose WHERE names the states that `JOB_TRANSITIONS` allows and, for owners, the
epoch.
"""

import dataclasses
import json
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, insert, select, true, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from service.errors import AlreadyExists, Conflict, Exhausted, HotloraError, NotFound, WrongState
from service.registry import adapters, cursors, datasets, events, versions
from service.registry.rows import (
    EventBody,
    EventRow,
    JobRow,
    Page,
    ProgressEvent,
    SettingWarning,
    StateChanged,
    VersionRow,
)
from service.registry.states import JOB_ENDED, JOB_OWNED, JobState, before
from service.registry.tables import jobs
from service.registry.tables import versions as _versions
from trainer import events as trainer_events
from trainer.config import Hyperparameters, Metric, Objective, Technique

_FIELDS = tuple(JobRow.__dataclass_fields__)
_COLUMNS = [jobs.c[name] for name in _FIELDS]
_QUEUE_RETRY_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What is asked for, checked and with every default filled in."""

    request_id: str
    """Empty: not idempotent."""
    request_digest: str
    """SHA-256 of the request as it was sent."""
    base_model: str
    dataset_id: str
    adapter_id: str
    technique: Technique
    hyperparameters: Hyperparameters
    objective: Objective = Objective.SUPERVISED
    evaluation_dataset_id: str = ""
    """Empty: the version is evaluated on what the validation split sets aside."""
    start_version: tuple[str, int] | None = None
    """Adapter and number whose weights it begins with; None: fresh ones."""
    warnings: tuple[SettingWarning, ...] = ()


async def create(
    connection: AsyncConnection, new: NewJob, job_id: str, now: float, max_queued_jobs: int
) -> JobRow:
    known = await of_request(connection, new.request_id, new.request_digest)
    if known is not None:
        return known
    await datasets.get(connection, new.dataset_id)
    if new.evaluation_dataset_id:
        await datasets.get(connection, new.evaluation_dataset_id)
    if new.start_version is not None:
        await versions.get(connection, *new.start_version)
    await _refuse_full_queue(connection, max_queued_jobs)
    await adapters.ensure(connection, new.adapter_id, new.base_model, now)
    await connection.execute(
        insert(jobs).values(
            id=job_id,
            request_id=new.request_id or None,
            request_digest=new.request_digest,
            base_model=new.base_model,
            dataset_id=new.dataset_id,
            adapter_id=new.adapter_id,
            technique=new.technique,
            objective=new.objective,
            hyperparameters=json.dumps(dataclasses.asdict(new.hyperparameters)),
            warnings=json.dumps([dataclasses.asdict(warning) for warning in new.warnings]),
            evaluation_dataset_id=new.evaluation_dataset_id or None,
            start_version=None if new.start_version is None else "{}@{}".format(*new.start_version),
            state=JobState.QUEUED,
            attempt=0,
            crashes=0,
            epoch=0,
            last_sequence=1,
            create_time=now,
        )
    )
    await events.append(connection, job_id, 1, StateChanged(time=now, state=JobState.QUEUED, attempt=0))
    return await get(connection, job_id)


async def of_request(connection: AsyncConnection, request_id: str, request_digest: str) -> JobRow | None:
    if not request_id:
        return None
    found = await connection.execute(select(*_COLUMNS).where(jobs.c.request_id == request_id))
    row = found.one_or_none()
    if row is None:
        return None
    if row.request_digest != request_digest:
        raise AlreadyExists(
            "REQUEST_ID_USED",
            f"request_id {request_id!r} made job {row.id!r} from another request; use a new request_id",
        )
    return _job(row)


async def _refuse_full_queue(connection: AsyncConnection, max_queued_jobs: int) -> None:
    found = await connection.execute(
        select(func.count()).select_from(jobs).where(jobs.c.state == JobState.QUEUED)
    )
    if found.scalar_one() >= max_queued_jobs:
        raise Exhausted(
            "QUEUE_FULL",
            f"{max_queued_jobs} jobs are waiting, which is the limit; try again when one has begun",
            retry_seconds=_QUEUE_RETRY_SECONDS,
        )


async def get(connection: AsyncConnection, job_id: str) -> JobRow:
    found = await connection.execute(select(*_COLUMNS).where(jobs.c.id == job_id))
    row = found.one_or_none()
    if row is None:
        raise NotFound("JOB_NOT_FOUND", f"there is no tuning job {job_id!r}")
    return _job(row)


async def lineage(connection: AsyncConnection, job_id: str) -> tuple[JobRow, ...]:
    found = [await get(connection, job_id)]
    while (start := found[-1].start_version) is not None:
        asked = await connection.execute(
            select(_versions.c.job_id).where(
                _versions.c.adapter_id == start[0], _versions.c.number == start[1]
            )
        )
        maker = asked.scalar_one()
        if maker is None:
            break
        found.append(await get(connection, maker))
    return tuple(found)


async def listing(
    connection: AsyncConnection, limit: int, cursor: str, states: Collection[JobState], adapter_id: str
) -> Page[JobRow]:
    scope = f"jobs states={','.join(sorted(set(states)))} adapter={adapter_id}"
    query = select(jobs.c.ordinal, *_COLUMNS)
    if states:
        query = query.where(jobs.c.state.in_(states))
    if adapter_id:
        query = query.where(jobs.c.adapter_id == adapter_id)
    last_seen = cursors.decode_number(scope, cursor)
    if last_seen is not None:
        query = query.where(jobs.c.ordinal < last_seen)
    found = (await connection.execute(query.order_by(jobs.c.ordinal.desc()).limit(limit + 1))).all()
    shown = found[:limit]
    return Page(
        rows=tuple(_job(row) for row in shown),
        next_cursor=cursors.encode(scope, shown[-1].ordinal) if len(found) > limit else "",
    )


async def owned(connection: AsyncConnection) -> list[JobRow]:
    found = await connection.execute(
        select(*_COLUMNS).where(jobs.c.state.in_(JOB_OWNED)).order_by(jobs.c.ordinal)
    )
    return [_job(row) for row in found]


async def unfinished_counts(connection: AsyncConnection) -> dict[JobState, int]:
    found = await connection.execute(
        select(jobs.c.state, func.count()).where(jobs.c.state.not_in(JOB_ENDED)).group_by(jobs.c.state)
    )
    counts = {JobState(state): count for state, count in found}
    return {state: counts.get(state, 0) for state in JobState if state not in JOB_ENDED}


async def unfinished_ids(connection: AsyncConnection) -> frozenset[str]:
    found = await connection.execute(select(jobs.c.id).where(jobs.c.state.not_in(JOB_ENDED)))
    return frozenset(found.scalars())


async def claim(
    connection: AsyncConnection, owner: str, now: float, base_models: Collection[str] | None
) -> JobRow | None:
    oldest = await connection.execute(
        select(jobs.c.id)
        .where(
            jobs.c.state == JobState.QUEUED,
            true() if base_models is None else jobs.c.base_model.in_(base_models),
        )
        .order_by(jobs.c.ordinal)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    job_id = oldest.scalar_one_or_none()
    if job_id is None:
        return None
    return await move(
        connection,
        job_id,
        StateChanged(time=now, state=JobState.RUNNING, attempt=0),
        attempt=jobs.c.attempt + 1,
        epoch=jobs.c.epoch + 1,
        owner=owner,
        heartbeat_time=now,
        start_time=func.coalesce(jobs.c.start_time, now),
    )


async def heartbeat(connection: AsyncConnection, job_id: str, owner: str, epoch: int, now: float) -> JobRow:
    changed = await connection.execute(
        update(jobs)
        .where(*_held(job_id, epoch), jobs.c.owner == owner)
        .values(heartbeat_time=now)
        .returning(*_COLUMNS)
    )
    row = changed.one_or_none()
    if row is None:
        raise await _refusal(connection, job_id, JOB_OWNED, epoch, "take a heartbeat")
    return _job(row)


async def append_event(
    connection: AsyncConnection, job_id: str, epoch: int, event: ProgressEvent
) -> EventRow:
    values: dict[str, object] = {}
    match event:
        case trainer_events.Metrics():
            values["latest_metrics"] = trainer_events.encode(event).decode()
        case trainer_events.Fit():
            values["fit"] = trainer_events.encode(event).decode()
            values["best_step"] = event.best_step
        case trainer_events.Evaluation() | trainer_events.Saving():
            values["best_step"] = event.best_step
        case trainer_events.FirstForward():
            values["first_forward_time"] = func.coalesce(jobs.c.first_forward_time, event.time)
        case trainer_events.FirstStep():
            values["first_step_time"] = func.coalesce(jobs.c.first_step_time, event.time)
        case _:
            pass
    return await _append(connection, job_id, epoch, event, values)


async def succeed(
    connection: AsyncConnection, job_id: str, epoch: int, published: trainer_events.Published, now: float
) -> tuple[JobRow, VersionRow]:
    await _append(connection, job_id, epoch, published, {})
    job = await get(connection, job_id)
    version = await versions.create(connection, job, published, now)
    ended = await move(
        connection,
        job_id,
        StateChanged(time=now, state=JobState.SUCCEEDED, attempt=job.attempt),
        expected_epoch=epoch,
        version_number=version.number,
        owner=None,
        end_time=now,
    )
    return ended, version


async def fail(
    connection: AsyncConnection, job_id: str, epoch: int, reason: str, message: str, now: float
) -> JobRow:
    return await move(
        connection,
        job_id,
        StateChanged(time=now, state=JobState.FAILED, attempt=0, reason=reason, message=message),
        expected_epoch=epoch,
        failure_reason=reason,
        failure_message=message,
        owner=None,
        end_time=now,
    )


async def cancel(connection: AsyncConnection, job_id: str, epoch: int, now: float) -> JobRow:
    """For the owner: from CANCELLING alone. A QUEUED job has no owner; see `wishes.request_cancel`."""
    return await move(
        connection,
        job_id,
        StateChanged(time=now, state=JobState.CANCELLED, attempt=0),
        sources=frozenset({JobState.CANCELLING}),
        expected_epoch=epoch,
        owner=None,
        end_time=now,
    )


async def pause(connection: AsyncConnection, job_id: str, epoch: int, now: float) -> JobRow:
    """For the owner: from PAUSING alone. A QUEUED job has no owner; see `wishes.request_pause`."""
    return await move(
        connection,
        job_id,
        StateChanged(time=now, state=JobState.PAUSED, attempt=0),
        sources=frozenset({JobState.PAUSING}),
        expected_epoch=epoch,
        epoch=jobs.c.epoch + 1,
        owner=None,
    )


async def requeue(
    connection: AsyncConnection,
    job_id: str,
    epoch: int,
    crash: tuple[str, str] | None,
    crashes: int,
    now: float,
) -> JobRow:
    reason, message = crash or (None, None)
    return await move(
        connection,
        job_id,
        StateChanged(time=now, state=JobState.QUEUED, attempt=0, reason=reason, message=message),
        sources=frozenset({JobState.RUNNING}),
        expected_epoch=epoch,
        epoch=jobs.c.epoch + 1,
        crashes=jobs.c.crashes if crash is None else crashes,
        owner=None,
    )


async def move(
    connection: AsyncConnection,
    job_id: str,
    change: StateChanged,
    *,
    sources: frozenset[JobState] | None = None,
    expected_epoch: int | None = None,
    **values: object,
) -> JobRow:
    """The guarded write of a state change with its event. `sources` narrows what the table allows."""
    allowed = before(change.state) if sources is None else sources & before(change.state)
    conditions: list[ColumnElement[bool]] = [jobs.c.id == job_id, jobs.c.state.in_(allowed)]
    if expected_epoch is not None:
        conditions.append(jobs.c.epoch == expected_epoch)
    changed = await connection.execute(
        update(jobs)
        .where(*conditions)
        .values(state=change.state, last_sequence=jobs.c.last_sequence + 1, **values)
        .returning(*_COLUMNS)
    )
    row = changed.one_or_none()
    if row is None:
        raise await _refusal(connection, job_id, allowed, expected_epoch, f"become {change.state}")
    job = _job(row)
    await events.append(
        connection, job_id, job.last_sequence, dataclasses.replace(change, attempt=job.attempt)
    )
    return job


async def _append(
    connection: AsyncConnection, job_id: str, epoch: int, body: EventBody, values: dict[str, object]
) -> EventRow:
    changed = await connection.execute(
        update(jobs)
        .where(*_held(job_id, epoch))
        .values(last_sequence=jobs.c.last_sequence + 1, **values)
        .returning(jobs.c.last_sequence)
    )
    sequence = changed.scalar_one_or_none()
    if sequence is None:
        raise await _refusal(connection, job_id, JOB_OWNED, epoch, f"take a {body.kind} event")
    return await events.append(connection, job_id, sequence, body)


def _held(job_id: str, epoch: int) -> tuple[ColumnElement[bool], ...]:
    return (jobs.c.id == job_id, jobs.c.epoch == epoch, jobs.c.state.in_(JOB_OWNED))


async def _refusal(
    connection: AsyncConnection, job_id: str, allowed: frozenset[JobState], epoch: int | None, action: str
) -> HotloraError:
    """Why a guarded write changed no row."""
    job = await get(connection, job_id)
    if epoch is not None and job.epoch != epoch and job.state not in JOB_ENDED:
        return Conflict(
            "FENCED_OFF",
            f"job {job_id!r} is at epoch {job.epoch} ({job.state}); epoch {epoch} may not write any more",
        )
    return wrong_state(job, allowed, action)


def wrong_state(job: JobRow, allowed: frozenset[JobState], action: str) -> WrongState:
    names = sorted(allowed)
    return WrongState(
        f"job {job.id!r} is {job.state}; to {action} it must be {' or '.join(names)}",
        state=job.state,
        allowed=names,
        reason="JOB_STATE",
    )


def _job(row: Row[tuple[object, ...]]) -> JobRow:
    fields = {name: row._mapping[name] for name in _FIELDS}
    not_in_the_first_release = {"early_stopping_metric": Metric.EVAL_LOSS}
    fields["hyperparameters"] = Hyperparameters.from_json(
        {**not_in_the_first_release, **json.loads(fields["hyperparameters"])}
    )
    fields["warnings"] = tuple(SettingWarning(**one) for one in json.loads(fields["warnings"]))
    if fields["start_version"] is not None:
        adapter_id, _, number = fields["start_version"].partition("@")
        fields["start_version"] = (adapter_id, int(number))
    for name in ("latest_metrics", "fit"):
        if fields[name] is not None:
            fields[name] = trainer_events.decode(fields[name].encode())
    fields["technique"] = Technique(fields["technique"])
    fields["objective"] = Objective(fields["objective"])
    fields["state"] = JobState(fields["state"])
    fields["request_id"] = fields["request_id"] or ""
    return JobRow(**fields)
