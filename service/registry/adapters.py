"""SQL for adapters."""

from collections.abc import Mapping

from sqlalchemy import ColumnElement, Select, func, insert, or_, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from service.errors import AlreadyExists, NotFound, WrongState
from service.registry import cursors, versions
from service.registry.rows import AdapterRow, Page, VersionRow
from service.registry.states import JOB_ENDED, VersionState
from service.registry.tables import adapters, jobs
from service.registry.tables import versions as versions_table

_SERVED = frozenset({VersionState.PENDING, VersionState.VERIFYING, VersionState.ACTIVE})


def _newest_active() -> ColumnElement[int]:
    newest = (
        select(func.max(versions_table.c.number))
        .where(versions_table.c.adapter_id == adapters.c.id, versions_table.c.state == VersionState.ACTIVE)
        .scalar_subquery()
    )
    return func.coalesce(newest, 0)


def _living() -> Select[tuple[object, ...]]:
    return select(
        adapters.c.id,
        adapters.c.base_model,
        adapters.c.latest_version,
        adapters.c.create_time,
        _newest_active().label("active_version"),
    ).where(adapters.c.delete_time.is_(None))


def _row(row: Row[tuple[object, ...]]) -> AdapterRow:
    return AdapterRow(**row._mapping)


async def ensure(connection: AsyncConnection, adapter_id: str, base_model: str, now: float) -> None:
    """Make the adapter if there is none; refuse a name that this base model cannot train."""
    if not await exists(connection, adapter_id, base_model):
        await connection.execute(
            insert(adapters).values(id=adapter_id, base_model=base_model, latest_version=0, create_time=now)
        )


async def exists(connection: AsyncConnection, adapter_id: str, base_model: str) -> bool:
    """Whether there is such an adapter; refuses a name that this base model cannot train."""
    found = await connection.execute(
        select(adapters.c.base_model, adapters.c.delete_time).where(adapters.c.id == adapter_id)
    )
    adapter = found.one_or_none()
    if adapter is None:
        return False
    if adapter.delete_time is not None:
        raise AlreadyExists(
            "ADAPTER_ID_USED", f"adapter {adapter_id!r} was deleted; ids are never reused, choose another"
        )
    if adapter.base_model != base_model:
        raise AlreadyExists(
            "OTHER_BASE_MODEL",
            f"adapter {adapter_id!r} belongs to base model {adapter.base_model!r}, not {base_model!r}; "
            "choose another adapter_id",
        )
    return True


async def base_model_of(connection: AsyncConnection, adapter_id: str) -> str:
    found = await connection.execute(select(adapters.c.base_model).where(adapters.c.id == adapter_id))
    return found.scalar_one_or_none() or ""


async def bases(connection: AsyncConnection) -> Mapping[str, str]:
    found = await connection.execute(
        select(adapters.c.id, adapters.c.base_model).where(adapters.c.delete_time.is_(None))
    )
    return {row.id: row.base_model for row in found}


async def get(connection: AsyncConnection, adapter_id: str) -> AdapterRow:
    row = (await connection.execute(_living().where(adapters.c.id == adapter_id))).one_or_none()
    if row is None:
        raise NotFound("ADAPTER_NOT_FOUND", f"there is no adapter {adapter_id!r}")
    return _row(row)


async def listing(connection: AsyncConnection, limit: int, cursor: str) -> Page[AdapterRow]:
    query = _living()
    last_seen = cursors.decode_text("adapters", cursor)
    if last_seen is not None:
        query = query.where(adapters.c.id > last_seen)
    found = (await connection.execute(query.order_by(adapters.c.id).limit(limit + 1))).all()
    rows = tuple(_row(row) for row in found[:limit])
    return Page(rows=rows, next_cursor=cursors.encode("adapters", rows[-1].id) if len(found) > limit else "")


async def delete(connection: AsyncConnection, adapter_id: str, now: float) -> list[VersionRow]:
    """Mark as deleted and retire what is or may be served; gives the versions that it moved."""
    await get(connection, adapter_id)
    await _refuse_while_training(connection, adapter_id)
    moved = [
        await versions.move(connection, version, VersionState.RETIRING, now)
        for version in await versions.in_states(connection, _SERVED, adapter_id)
    ]
    await connection.execute(update(adapters).where(adapters.c.id == adapter_id).values(delete_time=now))
    return moved


async def _refuse_while_training(connection: AsyncConnection, adapter_id: str) -> None:
    found = await connection.execute(
        select(jobs.c.id, jobs.c.state)
        .where(
            or_(jobs.c.adapter_id == adapter_id, jobs.c.start_version.startswith(f"{adapter_id}@")),
            jobs.c.state.not_in(JOB_ENDED),
        )
        .limit(1)
    )
    job = found.one_or_none()
    if job is not None:
        raise WrongState(
            f"adapter {adapter_id!r} is being trained or continued by job {job.id!r}, which is {job.state}; "
            f"it can be deleted once that job is {', '.join(sorted(JOB_ENDED))}",
            state=job.state,
            allowed=sorted(JOB_ENDED),
            reason="ADAPTER_IN_USE",
        )
