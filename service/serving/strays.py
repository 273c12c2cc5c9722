"""What belongs to base models that this service does not have. Versions that somebody let go are RETIRED at
once, since no engine here can have them; all else waits for a service that has its base, and is told once.
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
        """Tell what waits, then retire until cancelled."""
        await self._tell()
        while True:
            seen = self._changes.seen("versions")
            try:
                await self._retire()
            except HotloraError as error:
                _log.warning("could not retire versions of other bases", message=error.message)
            await self._changes.wait("versions", seen, self._period_seconds)

    async def _tell(self) -> None:
        try:
            bases = await self._registry.bases_of_adapters()
        except HotloraError as error:
            _log.warning("could not look for what belongs to other bases", message=error.message)
            return
        for base_model in sorted(set(bases.values()) - set(self._bases.names)):
            waiting = [adapter for adapter, base in bases.items() if base == base_model]
            _log.warning(
                "a base model is not there; what belongs to it waits", base=base_model, adapters=waiting
            )
        for name in bases.keys() & set(self._bases.names):
            _log.warning("a base model hides an adapter of its name; ask for NAME@N", adapter=name)

    async def _retire(self) -> None:
        for row in await self._registry.all_versions({VersionState.RETIRING}):
            if row.base_model in self._bases.names:
                continue
            try:
                await self._registry.move_version(row, VersionState.RETIRED)
            except Conflict:
                _log.info("moved by somebody else", model=row.model)
