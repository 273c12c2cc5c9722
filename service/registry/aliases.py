"""Aliases in the registry: where they point, who changed that, and which version a name means.

As everything here: one transaction a method. A change adds to the history and moves the alias's revision, in
one guarded write; where an alias points is what its latest change says.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from service.changes import Changes
from service.errors import Conflict, Exhausted, WrongState
from service.registry import adapters, pointing, versions
from service.registry.database import Database
from service.registry.rows import (
    AliasChange,
    AliasChangeKind,
    AliasRow,
    Page,
    Share,
)
from service.registry.tables import alias_changes, aliases

MOST_ALIASES = 100
"""Of one adapter: names are for people to know."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be done to an alias."""

    adapter_id: str
    alias_id: str
    author: str = ""
    expected_revision: int | None = None
    """0: there is none; None: whatever it is."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """A line of the history, but for who and when."""

    kind: AliasChangeKind
    shares: tuple[Share, ...]
    returns_to: int | None
    """The revision that a rollback comes back to."""
    is_forced: bool = False


class Aliases:
    """The part of the registry that knows aliases. Changes are told on `aliases`."""

    def __init__(self, *, database: Database, changes: Changes, clock: Callable[[], float]) -> None:
        self._database = database
        self._changes = changes
        self._clock = clock

    async def get(self, adapter_id: str, alias_id: str) -> AliasRow:
        """Raises NotFound (adapter, alias)."""
        async with self._database.read() as connection:
            return await pointing.get(connection, adapter_id, alias_id)

    async def find(self, adapter_id: str, alias_id: str) -> AliasRow | None:
        """None: there is none. Raises NotFound (adapter)."""
        async with self._database.read() as connection:
            await adapters.get(connection, adapter_id)
            return await pointing.find(connection, adapter_id, alias_id)

    async def listing(self, adapter_id: str, *, limit: int = 50, cursor: str = "") -> Page[AliasRow]:
        """By id. Raises NotFound (adapter), InvalidRequest (field page_token)."""
        async with self._database.read() as connection:
            await adapters.get(connection, adapter_id)
            return await pointing.listing(connection, adapter_id, limit, cursor)

    async def all(self) -> list[AliasRow]:
        """Of all adapters, by adapter and id."""
        async with self._database.read() as connection:
            found = await connection.execute(pointing.living().order_by(aliases.c.adapter_id, aliases.c.id))
            return [pointing.row_of(row) for row in found]

    async def history(
        self, adapter_id: str, alias_id: str, *, limit: int = 50, cursor: str = ""
    ) -> Page[AliasChange]:
        """What was done to it, newest first, a deleted one's too. Raises NotFound (adapter, alias),
        InvalidRequest (field page_token)."""
        async with self._database.read() as connection:
            await adapters.get(connection, adapter_id)
            return await pointing.history(connection, adapter_id, alias_id, limit, cursor)

    async def point(
        self,
        wish: Wish,
        shares: Sequence[Share],
        *,
        kind: AliasChangeKind,
        is_gated: bool | None,
        is_forced: bool,
    ) -> AliasRow:
        """Point an alias at versions, whose percentages make 100, and make it if there is none. Of one that
        points there already no more than its gate changes. `is_gated` None: as it was.

        Raises NotFound (adapter, version), WrongState (VERSION_NOT_ACTIVE), Conflict (ALIAS_MOVED), Exhausted
        (TOO_MANY_ALIASES).
        """
        ordered = tuple(sorted(shares, key=lambda share: share.version))
        async with self._database.write() as connection:
            now = self._clock()
            alias = await _expected(connection, wish)
            await _refuse_inactive(connection, wish.adapter_id, ordered)
            if alias is None:
                await _make(connection, wish, now)
            was_gated = alias is not None and alias.is_gated
            gate = was_gated if is_gated is None else is_gated
            if alias is None or alias.shares != ordered:
                returns_to = alias.revision if alias is not None and alias.shares else None
                done = Done(kind=kind, shares=ordered, returns_to=returns_to, is_forced=is_forced)
                await _change(connection, wish, done, is_gated=gate, now=now)
            elif gate != was_gated:
                trail = await pointing.trail(connection, alias)
                returns_to = trail[0][0] if trail else None
                done = Done(kind=AliasChangeKind.GATE_CHANGED, shares=ordered, returns_to=returns_to)
                await _change(connection, wish, done, is_gated=gate, now=now)
            row = await pointing.get(connection, wish.adapter_id, wish.alias_id)
        self._changes.notify("aliases")
        return row

    async def roll_back(self, wish: Wish, steps: int) -> AliasRow:
        """Point an alias at what it pointed at `steps` settings ago; what was rolled back does not count.

        Raises NotFound (adapter, alias), WrongState (NOTHING_BEFORE, VERSION_NOT_ACTIVE), Conflict
        (ALIAS_MOVED).
        """
        async with self._database.write() as connection:
            alias = await _existing(connection, wish)
            trail = await pointing.trail(connection, alias)
            if steps > len(trail):
                raise WrongState(
                    f"{alias.model} can be rolled back {len(trail)} step{'s' * (len(trail) != 1)}, not "
                    f"{steps}: before that it did not point anywhere",
                    state=f"revision {alias.revision}",
                    reason="NOTHING_BEFORE",
                )
            _, shares, returns_to = trail[steps - 1]
            await _refuse_inactive(connection, wish.adapter_id, shares)
            done = Done(kind=AliasChangeKind.ROLLED_BACK, shares=shares, returns_to=returns_to)
            await _change(connection, wish, done, is_gated=alias.is_gated, now=self._clock())
            row = await pointing.get(connection, wish.adapter_id, wish.alias_id)
        self._changes.notify("aliases")
        return row

    async def delete(self, wish: Wish) -> None:
        """Forget an alias, and not its history. Raises NotFound (adapter, alias), Conflict (ALIAS_MOVED)."""
        async with self._database.write() as connection:
            await _existing(connection, wish)
            done = Done(kind=AliasChangeKind.DELETED, shares=(), returns_to=None)
            await _change(connection, wish, done, is_gated=False, now=self._clock())
        self._changes.notify("aliases")


async def _expected(connection: AsyncConnection, wish: Wish) -> AliasRow | None:
    """The alias as it is, a deleted one too. Raises NotFound (adapter), Conflict (ALIAS_MOVED)."""
    await adapters.get(connection, wish.adapter_id)
    alias = await pointing.find(connection, wish.adapter_id, wish.alias_id)
    present = alias.revision if alias is not None and alias.shares else 0
    if wish.expected_revision not in (None, present):
        raise Conflict(
            "ALIAS_MOVED",
            f"alias {wish.alias_id!r} of {wish.adapter_id!r} is at revision {present} by now, not "
            f"{wish.expected_revision}; look again and decide anew",
        )
    return alias


async def _existing(connection: AsyncConnection, wish: Wish) -> AliasRow:
    alias = await _expected(connection, wish)
    if alias is None or not alias.shares:
        raise pointing.no_alias(wish.adapter_id, wish.alias_id)
    return alias


async def _refuse_inactive(connection: AsyncConnection, adapter_id: str, shares: Sequence[Share]) -> None:
    for share in shares:
        await versions.active(connection, adapter_id, share.version, "have traffic")


async def _make(connection: AsyncConnection, wish: Wish, now: float) -> None:
    found = await connection.execute(
        select(func.count()).select_from(aliases).where(aliases.c.adapter_id == wish.adapter_id)
    )
    if found.scalar_one() >= MOST_ALIASES:
        raise Exhausted(
            "TOO_MANY_ALIASES",
            f"adapter {wish.adapter_id!r} has had {MOST_ALIASES} aliases, which is the limit; use one of "
            "them again",
        )
    await connection.execute(
        insert(aliases).values(
            adapter_id=wish.adapter_id, id=wish.alias_id, revision=0, is_gated=False, create_time=now
        )
    )


async def _change(connection: AsyncConnection, wish: Wish, done: Done, *, is_gated: bool, now: float) -> None:
    """The write of a change with its history."""
    moved = await connection.execute(
        update(aliases)
        .where(aliases.c.adapter_id == wish.adapter_id, aliases.c.id == wish.alias_id)
        .values(revision=aliases.c.revision + 1, is_gated=is_gated)
        .returning(aliases.c.revision)
    )
    await connection.execute(
        insert(alias_changes).values(
            adapter_id=wish.adapter_id,
            alias_id=wish.alias_id,
            revision=moved.scalar_one(),
            time=now,
            kind=done.kind,
            author=wish.author,
            shares=json.dumps([[share.version, share.percent] for share in done.shares]),
            returns_to=done.returns_to,
            is_forced=done.is_forced,
            is_gated=is_gated,
        )
    )
