"""A reconciler for each engine of a base, also for engines that come and go while the service runs.

What is remembered of an engine that is gone for good is forgotten here, once nothing works on it any more.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Self

from service.changes import Changes
from service.engine.face import Engine
from service.engine.fleet import Fleet
from service.metrics import Metrics
from service.registry import Registry
from service.serving.bases import Base
from service.serving.disposal import Disposal
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

    @classmethod
    def of(
        cls,
        base: Base,
        *,
        registry: Registry,
        served: Served,
        disposal: Disposal,
        artifacts_dir: Path,
        changes: Changes,
        metrics: Metrics,
        period_seconds: float = 5.0,
        rest_seconds: float = 2.0,
    ) -> Self:
        """Those of a base; `Reconciler` says what the seconds are."""
        return cls(
            fleet=base.fleet,
            served=served,
            outcomes=base.outcomes,
            routes=base.routes,
            changes=changes,
            reconciler=lambda engine: Reconciler(
                registry=registry,
                engine=engine,
                served=served,
                outcomes=base.outcomes,
                disposal=disposal,
                routes=base.routes,
                artifacts_dir=artifacts_dir,
                base=base.model,
                rendering=base.renderer.contract(),
                changes=changes,
                metrics=metrics,
                period_seconds=period_seconds,
                rest_seconds=rest_seconds,
            ),
        )

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
