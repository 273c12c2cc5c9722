"""A reconciler for each engine of the base, also for engines that come and go while the service runs.

What is remembered of an engine that is gone for good is forgotten here, once nothing works on it any more.
"""

import asyncio
from collections.abc import Callable

from service.changes import Changes
from service.engine.face import Engine
from service.engine.fleet import Fleet
from service.serving.outcomes import Outcomes
from service.serving.reconciler import Reconciler
from service.serving.routes import Routes
from service.serving.served import Served


class Reconcilers:
    """See the module. Belongs to one event loop."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        served: Served,
        outcomes: Outcomes,
        routes: Routes,
        changes: Changes,
        reconciler: Callable[[Engine], Reconciler],
    ) -> None:
        """`reconciler` makes one for an engine."""
        self._fleet = fleet
        self._served = served
        self._outcomes = outcomes
        self._routes = routes
        self._changes = changes
        self._reconciler = reconciler
        self._tasks: dict[Engine, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Reconcile all engines until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                seen = self._changes.seen("engine")
                engines = self._fleet.engines
                for engine in engines:
                    if engine not in self._tasks:
                        self._tasks[engine] = tasks.create_task(self._reconciler(engine).run())
                for engine in [engine for engine in self._tasks if engine not in engines]:
                    await self._end(engine)
                await self._changes.wait("engine", seen)

    async def _end(self, engine: Engine) -> None:
        task = self._tasks.pop(engine)
        task.cancel()
        await asyncio.wait([task])
        self._served.forget(engine)
        self._routes.forget(engine)
        self._outcomes.forget(engine)
        self._changes.notify("versions")
