"""A real engine, and everything of serving on it."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from service.changes import Changes
from service.engine import EngineState, Fleet, Supervisor
from service.metrics import Metrics
from service.registry import Registry, VersionRow, VersionState
from service.serving import (
    Bases,
    Chat,
    ChatMessage,
    ChatTurn,
    Disposal,
    Means,
    OwnEngines,
    Prover,
    Reconcilers,
    Routes,
    Served,
    Serving,
)
from service.settings import Settings
from tests.bases import made_base
from tests.service.real_adapters import Workshop
from tests.service.registry_stage import open_registry
from tests.service.registry_stage import until as until_reached
from trainer.config import BaseModel
from trainer.rendering import Renderer

START_SECONDS = 600.0
PROOF_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Bare:
    """A real engine that nothing serves with yet: what is loaded stays."""

    settings: Settings
    base: BaseModel
    engine: Supervisor
    changes: Changes


@asynccontextmanager
async def running(bare: Bare) -> AsyncIterator[None]:
    """Run the engine, once it is ready."""
    bare.settings.make_directories()
    task = asyncio.create_task(bare.engine.run())
    try:

        async def reached() -> bool:
            return bare.engine.state is EngineState.READY

        await until_reached(bare.changes, "engine", reached, START_SECONDS)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@dataclass(frozen=True, kw_only=True)
class Real:
    """Everything of serving on a real engine."""

    base: BaseModel
    registry: Registry
    engine: Supervisor
    served: Served
    routes: Routes
    own_engines: OwnEngines
    chat: Chat
    changes: Changes
    artifacts_dir: Path
    workshop: Workshop

    async def ready(self, generation: int) -> None:
        """Wait for the engine."""

        async def reached() -> bool:
            return self.engine.generation >= generation and self.engine.state is EngineState.READY

        await until_reached(self.changes, "engine", reached, START_SECONDS)

    async def outcome(
        self,
        row: VersionRow,
        states: Collection[VersionState] = (VersionState.ACTIVE, VersionState.FAILED),
    ) -> VersionRow:
        """Wait until a version is in one of `states`."""

        async def reached() -> bool:
            found = await self.registry.get_version(row.adapter_id, row.number)
            return found.state in states

        await until_reached(self.changes, f"version/{row.model}", reached, PROOF_SECONDS)
        return await self.registry.get_version(row.adapter_id, row.number)

    async def is_served(self, model: str) -> None:
        """Wait until a version is proven on the present engine."""

        async def reached() -> bool:
            return self.served.holds(model)

        await until_reached(self.changes, "polled", reached, PROOF_SECONDS)

    async def sleeps(self, row: VersionRow) -> None:
        """Wait until a whole model's engine is gone."""

        async def reached() -> bool:
            return self.own_engines.serving(row) is Serving.ASLEEP

        await until_reached(self.changes, "polled", reached, PROOF_SECONDS)

    async def say(self, model: str) -> str:
        """A short answer."""
        turn = ChatTurn(
            model=model, messages=(ChatMessage(role="user", content="Say hello."),), max_tokens=12
        )
        async with aclosing(self.chat.stream(turn)) as deltas:
            return "".join([delta.text async for delta in deltas])


@asynccontextmanager
async def serving(bare: Bare) -> AsyncIterator[Real]:
    """Everything, with an engine that runs."""
    settings, base, engine, changes = bare.settings, bare.base, bare.engine, bare.changes
    async with open_registry(settings.home, changes=changes) as registry:
        served = Served(changes=changes)
        metrics = Metrics()
        one = made_base(
            base,
            Fleet([engine]),
            renderer=Renderer.from_directory(base.path),
            changes=changes,
            served=served,
        )
        bases = Bases([one])
        reconcilers = Reconcilers.of(
            one,
            registry=registry,
            served=served,
            disposal=Disposal(registry=registry, bases=bases, artifacts_dir=settings.artifacts_dir),
            artifacts_dir=settings.artifacts_dir,
            changes=changes,
            metrics=metrics,
        )
        own_engines = OwnEngines(
            Means(
                registry=registry,
                served=served,
                bases=bases,
                settings=settings,
                changes=changes,
                prover=Prover(),
                metrics=metrics,
            )
        )
        chat = Chat(registry=registry, served=served, bases=bases, own_engines=own_engines, metrics=metrics)
        parts = (reconcilers.run(), own_engines.run())
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            yield Real(
                base=base,
                registry=registry,
                engine=engine,
                served=served,
                routes=one.routes,
                own_engines=own_engines,
                chat=chat,
                changes=changes,
                artifacts_dir=settings.artifacts_dir,
                workshop=Workshop(base),
            )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
