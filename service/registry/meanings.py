"""Which versions models' names mean, remembered for as long as nobody has changed anything in the database.

Every request for an adapter asks, and reading it takes longer than all else that a request costs here.
"""

from collections.abc import Callable

from service.registry import pointing
from service.registry.database import Database
from service.registry.rows import VersionRow


class Meanings:
    """Belongs to one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stamp: int | None = None
        self._known: dict[str, tuple[tuple[VersionRow, int], ...]] = {}
        """As the database was at `_stamp`, or later. Names that mean nothing are not among them."""

    async def resolve(self, name: str, place: float, is_able: Callable[[VersionRow], bool]) -> VersionRow:
        """As `Registry.resolve_model`."""
        stamp = await self._database.stamp()
        if stamp is None or stamp != self._stamp:
            self._stamp, self._known = stamp, {}
        known = self._known  # while the database is read, somebody may come who finds it changed
        active = known.get(name)
        if active is None:
            async with self._database.read() as connection:
                active = known[name] = await pointing.meaning(connection, name)
        able = [(row, percent) for row, percent in active if is_able(row)]
        return pointing.at(place, able or active)
