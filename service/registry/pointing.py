"""SQL for where aliases point: reading, their history, and which version a model's name means."""

import json
from collections.abc import Sequence

from sqlalchemy import Select, select
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from service.errors import NotFound, WrongState
from service.registry import adapters, cursors, versions
from service.registry.rows import (
    DEFAULT_ALIAS,
    AliasChange,
    AliasChangeKind,
    AliasRow,
    Page,
    Share,
    VersionRow,
)
from service.registry.states import VersionState
from service.registry.tables import adapters as adapters_table
from service.registry.tables import alias_changes, aliases


async def get(connection: AsyncConnection, adapter_id: str, alias_id: str) -> AliasRow:
    await adapters.get(connection, adapter_id)
    alias = await find(connection, adapter_id, alias_id)
    if alias is None or not alias.shares:
        raise no_alias(adapter_id, alias_id)
    return alias


async def find(connection: AsyncConnection, adapter_id: str, alias_id: str) -> AliasRow | None:
    """One that was deleted too: its shares are empty."""
    found = await connection.execute(
        _known().where(aliases.c.adapter_id == adapter_id, aliases.c.id == alias_id)
    )
    row = found.one_or_none()
    return None if row is None else row_of(row)


async def listing(connection: AsyncConnection, adapter_id: str, limit: int, cursor: str) -> Page[AliasRow]:
    scope = f"aliases of {adapter_id}"
    query = living().where(aliases.c.adapter_id == adapter_id)
    last_seen = cursors.decode_text(scope, cursor)
    if last_seen is not None:
        query = query.where(aliases.c.id > last_seen)
    found = (await connection.execute(query.order_by(aliases.c.id).limit(limit + 1))).all()
    rows = tuple(row_of(row) for row in found[:limit])
    return Page(rows=rows, next_cursor=cursors.encode(scope, rows[-1].id) if len(found) > limit else "")


async def history(
    connection: AsyncConnection, adapter_id: str, alias_id: str, limit: int, cursor: str
) -> Page[AliasChange]:
    scope = f"changes of {adapter_id}@{alias_id}"
    query = select(alias_changes).where(
        alias_changes.c.adapter_id == adapter_id, alias_changes.c.alias_id == alias_id
    )
    last_seen = cursors.decode_number(scope, cursor)
    if last_seen is not None:
        query = query.where(alias_changes.c.revision < last_seen)
    # One more than are shown: it says that there are more, and where the oldest of the shown came from.
    found = (await connection.execute(query.order_by(alias_changes.c.revision.desc()).limit(limit + 1))).all()
    if not found and last_seen is None:
        raise no_alias(adapter_id, alias_id)
    before = [*(_shares(row.shares) for row in found[1:]), ()]
    rows = tuple(
        AliasChange(
            revision=row.revision,
            time=row.time,
            kind=AliasChangeKind(row.kind),
            author=row.author,
            before=earlier,
            after=_shares(row.shares),
            is_forced=row.is_forced,
            is_gated=row.is_gated,
        )
        for row, earlier in zip(found[:limit], before, strict=False)
    )
    return Page(rows=rows, next_cursor=cursors.encode(scope, rows[-1].revision) if len(found) > limit else "")


async def trail(
    connection: AsyncConnection, alias: AliasRow
) -> list[tuple[int, tuple[Share, ...], int | None]]:
    """What rollbacks come back to, one after the other: revision, shares, and what follows."""
    found = await connection.execute(
        select(alias_changes.c.revision, alias_changes.c.shares, alias_changes.c.returns_to).where(
            alias_changes.c.adapter_id == alias.adapter_id, alias_changes.c.alias_id == alias.id
        )
    )
    changes = {row.revision: row for row in found}
    settings = []
    revision = changes[alias.revision].returns_to
    while revision is not None:
        row = changes[revision]
        settings.append((revision, _shares(row.shares), row.returns_to))
        revision = row.returns_to
    return settings


async def meaning(connection: AsyncConnection, name: str) -> tuple[tuple[VersionRow, int], ...]:
    """The ACTIVE versions that a model's name means, in their order, each with its percentage.

    Raises as `Registry.resolve_model`.
    """
    adapter_id, separator, rest = name.partition("@")
    if separator and not rest[:1].isalpha():
        return ((await versions.resolve(connection, name), 100),)
    alias = await find(connection, adapter_id, rest or DEFAULT_ALIAS)
    if alias is None or not alias.shares:
        if rest in ("", DEFAULT_ALIAS):
            return ((await versions.resolve(connection, adapter_id), 100),)
        raise NotFound("MODEL_NOT_FOUND", f"there is no model {name!r}")
    rows = [await versions.get(connection, adapter_id, share.version) for share in alias.shares]
    active = tuple(
        (row, share.percent)
        for row, share in zip(rows, alias.shares, strict=True)
        if row.state == VersionState.ACTIVE
    )
    if not active:
        raise WrongState(
            f"{name} points at " + ", ".join(f"{row.model}, which is {row.state}" for row in rows),
            state=rows[0].state,
            allowed=[VersionState.ACTIVE],
            reason="VERSION_NOT_ACTIVE",
        )
    return active


async def refuse_pointed_at(connection: AsyncConnection, adapter_id: str, number: int, action: str) -> None:
    """Raise WrongState (VERSION_HAS_TRAFFIC) for a version that an alias points at."""
    found = await connection.execute(living().where(aliases.c.adapter_id == adapter_id))
    names = [
        alias.model for alias in map(row_of, found) if any(share.version == number for share in alias.shares)
    ]
    if names:
        raise WrongState(
            f"{adapter_id}@{number} answers for {', '.join(names)}; point {'them' if names[1:] else 'it'} at "
            f"another version before it is {action}",
            state=VersionState.ACTIVE,
            reason="VERSION_HAS_TRAFFIC",
        )


def living() -> Select[tuple[object, ...]]:
    return _known().where(alias_changes.c.shares != "[]")


def row_of(row: Row[tuple[object, ...]]) -> AliasRow:
    fields = dict(row._mapping)
    return AliasRow(**{**fields, "shares": _shares(fields["shares"])})


def no_alias(adapter_id: str, alias_id: str) -> NotFound:
    return NotFound("ALIAS_NOT_FOUND", f"adapter {adapter_id!r} has no alias {alias_id!r}")


def at(place: float, active: Sequence[tuple[VersionRow, int]]) -> VersionRow:
    """The version for a request at `place` (0 to 1, 1 excluded) among all.

    In the order of versions, so that one that gains traffic keeps the places that it had.
    """
    left = place * sum(percent for _, percent in active)
    for row, percent in active:
        left -= percent
        if left < 0:
            return row
    return active[-1][0]


def _known() -> Select[tuple[object, ...]]:
    """Aliases of living adapters with where they point; what was deleted points nowhere."""
    return (
        select(
            aliases.c.adapter_id,
            aliases.c.id,
            aliases.c.revision,
            aliases.c.is_gated,
            aliases.c.create_time,
            alias_changes.c.shares,
            alias_changes.c.time.label("update_time"),
        )
        .join(
            alias_changes,
            (alias_changes.c.adapter_id == aliases.c.adapter_id)
            & (alias_changes.c.alias_id == aliases.c.id)
            & (alias_changes.c.revision == aliases.c.revision),
        )
        .join(adapters_table, adapters_table.c.id == aliases.c.adapter_id)
        .where(adapters_table.c.delete_time.is_(None))
    )


def _shares(text: str) -> tuple[Share, ...]:
    return tuple(Share(version=version, percent=percent) for version, percent in json.loads(text))
