"""What tests of whole models need: an engine of its own for each, all of them doubles."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from service.changes import Changes
from service.engine import Abilities, EngineClient, EngineState
from service.engine.command import Room
from service.registry import VersionRow
from service.serving import Means
from service.serving.own_engine import Timing
from service.settings import Settings
from tests.doubles.engine import EngineDouble
from tests.service.serving_stage import Stage, register, stage, write_model
from trainer.config import BaseModel, Technique

QUICK = Timing(period=0.05, rest=0.02, memory=0.2)
GIB = 1 << 30


class OwnDouble:
    """The face of an engine that is a double of its own, from `run` to its cancellation."""

    supervised = True
    max_rank = 0
    abilities = Abilities()
    max_model_length = 1000

    def __init__(self, model: BaseModel, row: "Row") -> None:
        self.model = model
        self.name = model.name
        self.state = EngineState.STARTING
        self.generation = 0
        self.restarts = 0
        self.message = "a double of its own"
        self._row = row
        self._client: EngineClient | None = None
        self.double = EngineDouble(
            base_name=model.name, own_weights=(model.path / "model.safetensors").read_bytes()
        )

    @property
    def client(self) -> EngineClient:
        assert self._client is not None
        return self._client

    async def run(self) -> None:
        """Be a supervisor."""
        self._row.running.append(self.model.name)
        try:
            while self._row.fails_to_start:
                self.generation += 1
                self._tell(EngineState.DOWN)
                await asyncio.sleep(0.01)
            await self._row.may_start.wait()
            async with self.double:
                self._client = EngineClient(url=self.double.url)
                self.generation += 1
                self._tell(EngineState.READY)
                try:
                    await asyncio.Event().wait()
                finally:
                    await self._client.close()
        finally:
            self._row.running.remove(self.model.name)

    async def restart(self) -> None:
        """Come back as a new generation."""
        self._tell(EngineState.DOWN)
        await self.client.close()
        await self.double.restart()
        self._client = EngineClient(url=self.double.url)
        self.generation += 1
        self.restarts += 1
        self._tell(EngineState.READY)

    def _tell(self, state: EngineState) -> None:
        self.state = state
        self._row.changes.notify("engine")


@dataclass
class Row:
    """All engines of a test, and what happens to them."""

    changes: Changes = field(default_factory=Changes)
    engines: list[OwnDouble] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    may_start: asyncio.Event = field(default_factory=asyncio.Event)
    fails_to_start: bool = False
    available: int = 64 * GIB
    now: float = 0.0

    def make(self, model: BaseModel) -> OwnDouble:
        engine = OwnDouble(model, self)
        self.engines.append(engine)
        return engine


@asynccontextmanager
async def own_stage(
    tmp_path: Path, *, more_bases: Mapping[str, str | None] = MappingProxyType({}), **settings: float
) -> AsyncIterator[tuple[Stage, Row]]:
    """Serving in which each whole model gets a double of its own, and those doubles."""
    row = Row()
    row.may_start.set()

    def means(given: Means) -> Means:
        row.changes = given.changes
        return replace(
            given,
            settings=Settings.model_validate({"home": tmp_path, **settings}),
            new_engine=row.make,
            room=lambda *_: Room(kind="memory", needed_bytes=3 * GIB, available_bytes=row.available),
            timing=QUICK,
            clock=lambda: row.now,
        )

    async with stage(tmp_path, own_engines=means, more_bases=more_bases) as on:
        yield on, row


async def publish_whole(on: Stage, name: str, weights: bytes, canary: bytes | None = None) -> VersionRow:
    """Publish and register the first version of a whole model."""
    digest = write_model(on.artifacts_dir, weights, canary_weights=canary)
    return await register(on.registry, digest, adapter_id=name, rank=0, technique=Technique.FULL)
