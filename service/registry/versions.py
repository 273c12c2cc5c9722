"""SQL for adapter versions: guarded moves between states, and reading."""

import dataclasses
import json
from collections.abc import Collection

from sqlalchemy import Select, func, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from service.errors import Conflict, NotFound, WrongState
from service.registry import cursors
from service.registry.rows import JobRow, Page, Verification, VersionChange, VersionRow
from service.registry.states import VERSION_TRANSITIONS, VersionState, versions_before
from service.registry.tables import adapters, version_changes, versions
from trainer.config import Technique
from trainer.events import Published

_FIELDS = tuple(name for name in VersionRow.__dataclass_fields__ if name != "base_model")
_COLUMNS = [versions.c[name] for name in _FIELDS]
_MAX_NUMBER = 999_999_999


@dataclasses.dataclass(frozen=True, kw_only=True)
class Imported:
    """An artifact that no job made."""

    adapter_id: str
    base_model: str
    rank: int
    digest: str
    size_bytes: int


async def create(connection: AsyncConnection, job: JobRow, published: Published, now: float) -> VersionRow:
    """Give the adapter its next version, PENDING. Numbers are never reused."""
    return await _create(connection, job.adapter_id, job.id, job.technique, published, now)


async def create_imported(connection: AsyncConnection, imported: Imported, now: float) -> VersionRow:
    """As `create`, without a job."""
    return await _create(connection, imported.adapter_id, None, Technique.LORA, imported, now)


async def _create(
    connection: AsyncConnection,
    adapter_id: str,
    job_id: str | None,
    technique: Technique,
    published: Published | Imported,
    now: float,
) -> VersionRow:
    counted = await connection.execute(
        update(adapters)
        .where(adapters.c.id == adapter_id)
        .values(latest_version=adapters.c.latest_version + 1)
        .returning(adapters.c.latest_version, adapters.c.base_model)
    )
    number, base_model = counted.one()
    row = VersionRow(
        adapter_id=adapter_id,
        base_model=base_model,
        number=number,
        state=VersionState.PENDING,
        failure_reason=None,
        failure_message=None,
        job_id=job_id,
        technique=technique,
        rank=published.rank,
        digest=published.digest,
        size_bytes=published.size_bytes,
        verification=None,
        create_time=now,
        active_time=None,
        epoch=1,
    )
    await connection.execute(insert(versions).values({name: getattr(row, name) for name in _FIELDS}))
    await _record(connection, row, now)
    return row


async def get(connection: AsyncConnection, adapter_id: str, number: int) -> VersionRow:
    found = await connection.execute(
        _of_living_adapters().where(versions.c.adapter_id == adapter_id, versions.c.number == number)
    )
    row = found.one_or_none()
    if row is None:
        raise NotFound("VERSION_NOT_FOUND", f"there is no version {number} of adapter {adapter_id!r}")
    return _row(row)


async def active(connection: AsyncConnection, adapter_id: str, number: int, action: str) -> VersionRow:
    """A version that is ACTIVE, as it must be to `action`. Raises NotFound, WrongState."""
    version = await get(connection, adapter_id, number)
    if version.state != VersionState.ACTIVE:
        raise _wrong_state(version, action, frozenset({VersionState.ACTIVE}), reason="VERSION_NOT_ACTIVE")
    return version


async def listing(connection: AsyncConnection, adapter_id: str, limit: int, cursor: str) -> Page[VersionRow]:
    scope = f"versions of {adapter_id}"
    query = _all().where(versions.c.adapter_id == adapter_id)
    last_seen = cursors.decode_number(scope, cursor)
    if last_seen is not None:
        query = query.where(versions.c.number < last_seen)
    found = (await connection.execute(query.order_by(versions.c.number.desc()).limit(limit + 1))).all()
    rows = tuple(_row(row) for row in found[:limit])
    return Page(rows=rows, next_cursor=cursors.encode(scope, rows[-1].number) if len(found) > limit else "")


async def in_states(
    connection: AsyncConnection, states: Collection[VersionState], adapter_id: str | None = None
) -> list[VersionRow]:
    query = _all().where(versions.c.state.in_(states))
    if adapter_id is not None:
        query = query.where(versions.c.adapter_id == adapter_id)
    found = await connection.execute(query.order_by(versions.c.adapter_id, versions.c.number))
    return [_row(row) for row in found]


async def of_deleted_adapters(connection: AsyncConnection) -> list[VersionRow]:
    found = await connection.execute(
        _all()
        .where(
            adapters.c.delete_time.is_not(None),
            versions.c.state.in_([VersionState.RETIRED, VersionState.FAILED]),
        )
        .order_by(versions.c.adapter_id, versions.c.number)
    )
    return [_row(row) for row in found]


async def digests(connection: AsyncConnection) -> frozenset[str]:
    found = await connection.execute(select(versions.c.digest))
    return frozenset(found.scalars())


async def history(connection: AsyncConnection, adapter_id: str, number: int) -> list[VersionChange]:
    found = await connection.execute(
        select(version_changes)
        .where(version_changes.c.adapter_id == adapter_id, version_changes.c.number == number)
        .order_by(version_changes.c.epoch)
    )
    return [
        VersionChange(
            epoch=row.epoch,
            time=row.time,
            state=VersionState(row.state),
            reason=row.reason,
            message=row.message,
        )
        for row in found
    ]


async def move(
    connection: AsyncConnection,
    row: VersionRow,
    to: VersionState,
    now: float,
    *,
    failure: tuple[str, str] | None = None,
    verification: Verification | None = None,
) -> VersionRow:
    """The guarded write of a state change with its history, against the state and epoch in `row`."""
    assert (failure is not None) == (to == VersionState.FAILED), "a failure belongs to FAILED"
    if to not in VERSION_TRANSITIONS[row.state]:
        raise _wrong_state(row, f"become {to}", versions_before(to))
    reason, message = failure or (None, None)
    values: dict[str, object] = {
        "state": to,
        "epoch": versions.c.epoch + 1,
        "failure_reason": reason,
        "failure_message": message,
    }
    if verification is not None:
        values["verification"] = json.dumps(dataclasses.asdict(verification))
    if to == VersionState.ACTIVE:
        values["active_time"] = func.coalesce(versions.c.active_time, now)
    changed = await connection.execute(
        update(versions)
        .where(
            versions.c.adapter_id == row.adapter_id,
            versions.c.number == row.number,
            versions.c.state == row.state,
            versions.c.epoch == row.epoch,
        )
        .values(**values)
        .returning(*_COLUMNS)
    )
    found = changed.one_or_none()
    if found is None:
        raise await _outdated(connection, row, to)
    moved = _row(found, row.base_model)
    await _record(connection, moved, now)
    return moved


async def request_load(connection: AsyncConnection, adapter_id: str, number: int, now: float) -> VersionRow:
    version = await get(connection, adapter_id, number)
    if version.state in (VersionState.PENDING, VersionState.VERIFYING, VersionState.ACTIVE):
        return version
    if version.state == VersionState.RETIRING:
        raise _wrong_state(version, "be loaded", frozenset(VersionState) - {VersionState.RETIRING})
    return await move(connection, version, VersionState.PENDING, now)


async def request_unload(connection: AsyncConnection, adapter_id: str, number: int, now: float) -> VersionRow:
    version = await get(connection, adapter_id, number)
    if version.state in (VersionState.RETIRING, VersionState.RETIRED):
        return version
    if version.state != VersionState.ACTIVE:
        allowed = frozenset({VersionState.ACTIVE, VersionState.RETIRING, VersionState.RETIRED})
        raise _wrong_state(version, "be unloaded", allowed)
    return await move(connection, version, VersionState.RETIRING, now)


async def resolve(connection: AsyncConnection, name: str) -> VersionRow:
    adapter_id, separator, number = name.partition("@")
    if separator:
        if not number.isascii() or not number.isdecimal() or not 1 <= int(number[:10]) <= _MAX_NUMBER:
            raise _no_model(name)
        return await active(connection, adapter_id, int(number[:10]), "answer")
    found = await connection.execute(
        _of_living_adapters().where(versions.c.adapter_id == name).order_by(versions.c.number.desc())
    )
    candidates = [_row(row) for row in found]
    for version in candidates:
        if version.state == VersionState.ACTIVE:
            return version
    if not candidates and not await _adapter_exists(connection, name):
        raise _no_model(name)
    newest = f"version {candidates[0].number} is {candidates[0].state}" if candidates else "it has no version"
    raise WrongState(
        f"adapter {name!r} has no ACTIVE version; {newest}",
        state=candidates[0].state if candidates else "",
        allowed=[VersionState.ACTIVE],
        reason="NO_ACTIVE_VERSION",
    )


def _all() -> Select[tuple[object, ...]]:
    return select(*_COLUMNS, adapters.c.base_model).join(adapters, adapters.c.id == versions.c.adapter_id)


def _of_living_adapters() -> Select[tuple[object, ...]]:
    return _all().where(adapters.c.delete_time.is_(None))


async def _adapter_exists(connection: AsyncConnection, adapter_id: str) -> bool:
    found = await connection.execute(
        select(adapters.c.id).where(adapters.c.id == adapter_id, adapters.c.delete_time.is_(None))
    )
    return found.one_or_none() is not None


async def _record(connection: AsyncConnection, row: VersionRow, now: float) -> None:
    await connection.execute(
        insert(version_changes).values(
            adapter_id=row.adapter_id,
            number=row.number,
            epoch=row.epoch,
            time=now,
            state=row.state,
            reason=row.failure_reason,
            message=row.failure_message,
        )
    )


async def _outdated(connection: AsyncConnection, row: VersionRow, to: VersionState) -> Conflict:
    found = await connection.execute(
        select(versions.c.state, versions.c.epoch).where(
            versions.c.adapter_id == row.adapter_id, versions.c.number == row.number
        )
    )
    present = found.one()
    return Conflict(
        "VERSION_MOVED",
        f"{row.model} is {present.state} at epoch {present.epoch} by now, not {row.state} at epoch "
        f"{row.epoch}; it did not become {to}",
    )


def _wrong_state(
    row: VersionRow, action: str, allowed: frozenset[VersionState], reason: str = "VERSION_STATE"
) -> WrongState:
    names = sorted(allowed)
    return WrongState(
        f"{row.model} is {row.state}; to {action} it must be {' or '.join(names)}",
        state=row.state,
        allowed=names,
        reason=reason,
    )


def _no_model(name: str) -> NotFound:
    return NotFound("MODEL_NOT_FOUND", f"there is no model {name!r}")


def _row(row: Row[tuple[object, ...]], base_model: str | None = None) -> VersionRow:
    """`base_model` None: the row has it."""
    fields = {name: row._mapping[name] for name in _FIELDS}
    fields["base_model"] = base_model or row._mapping["base_model"]
    fields["state"] = VersionState(fields["state"])
    fields["technique"] = Technique(fields["technique"])
    if fields["verification"] is not None:
        fields["verification"] = Verification(**json.loads(fields["verification"]))
    return VersionRow(**fields)
