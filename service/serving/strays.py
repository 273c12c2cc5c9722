"""Versions of base models that this service does not have: those that somebody let go are RETIRED at once,
since no engine here can have them; all others wait for a service that has their base.
"""

import structlog

from service.changes import Changes
from service.errors import Conflict, HotloraError
from service.registry import Registry, VersionState
from service.serving.bases import Bases

_log = structlog.get_logger(__name__)


class Strays:
    """See the module. Belongs to one event loop."""

    def __init__(
        self, *, registry: Registry, bases: Bases, changes: Changes, period_seconds: float = 5.0
    ) -> None:
        """Looks at every change, and at least every `period_seconds`."""
        self._registry = registry
        self._bases = bases
        self._changes = changes
        self._period_seconds = period_seconds

    async def run(self) -> None:
        """Retire until cancelled."""
        while True:
            seen = self._changes.seen("versions")
            try:
                await self._retire()
            except HotloraError as error:
                _log.warning("could not retire versions of other bases", message=error.message)
            await self._changes.wait("versions", seen, self._period_seconds)

    async def _retire(self) -> None:
        for row in await self._registry.all_versions({VersionState.RETIRING}):
            if row.base_model in self._bases.names:
                continue
            try:
                await self._registry.move_version(row, VersionState.RETIRED)
            except Conflict:
                _log.info("moved by somebody else", model=row.model)
