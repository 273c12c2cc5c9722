"""All engines of the base model, replicas of each other, and what they are together.

Which replica has which adapter, and which one answers, is not known here.
"""

import asyncio
from collections.abc import Sequence

from service.changes import Changes
from service.engine.attached import AttachedEngine
from service.engine.face import Abilities, Engine, EngineState
from service.engine.supervisor import CommandBuilder, Supervisor
from service.engine.wire import unavailable
from service.settings import Settings
from trainer.config import BaseModel


class Fleet:
    """One engine or more; ready when one is."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        if not engines:
            raise ValueError("there must be an engine")
        self.engines = tuple(engines)
        """In the order of the settings; their names differ."""

    @property
    def ready(self) -> tuple[Engine, ...]:
        """Those that answer."""
        return tuple(engine for engine in self.engines if engine.state is EngineState.READY)

    @property
    def any_ready(self) -> Engine:
        """The first one that answers. Raises Unavailable where none does."""
        for engine in self.ready:
            return engine
        raise unavailable(self.message)

    @property
    def state(self) -> EngineState:
        """READY when one is, else STARTING when one is, else DOWN."""
        states = {engine.state for engine in self.engines}
        best = (EngineState.READY, EngineState.STARTING, EngineState.DOWN)
        return next(state for state in best if state in states)

    @property
    def restarts(self) -> int:
        """Of all together."""
        return sum(engine.restarts for engine in self.engines)

    @property
    def message(self) -> str:
        """One sentence for a person."""
        if len(self.engines) == 1:
            return self.engines[0].message
        others = [engine for engine in self.engines if engine.state is not EngineState.READY]
        said = "".join(f"; {engine.name}: {engine.message}" for engine in others)
        return f"{len(self.ready)} of {len(self.engines)} engines are ready{said}"

    @property
    def max_rank(self) -> int:
        """Highest adapter rank that all of them serve."""
        return min(engine.max_rank for engine in self.engines)

    @property
    def abilities(self) -> Abilities:
        """What at least one of them takes."""
        found = [engine.abilities for engine in self.engines]
        return Abilities(
            adapters=any(each.adapters for each in found), embeddings=any(each.embeddings for each in found)
        )

    @property
    def max_model_length(self) -> int:
        """Tokens that prompt and answer together may have, on each of them."""
        return min(engine.max_model_length for engine in self.engines)

    @property
    def supervised(self) -> bool:
        """Whether all are children of this service."""
        return all(engine.supervised for engine in self.engines)

    async def run(self) -> None:
        """Keep all of them going until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for engine in self.engines:
                tasks.create_task(engine.run())


def fleet(
    settings: Settings, *, base: BaseModel, changes: Changes, command: CommandBuilder | None = None
) -> Fleet:
    """The engines of the settings: somebody else's where URLs are set, else our own, started by `command` as
    `Supervisor` takes it."""
    if settings.engine_urls:
        return Fleet(
            [
                AttachedEngine(url=url, settings=settings, base=base, changes=changes)
                for url in settings.engine_urls
            ]
        )
    return Fleet([_own(settings, index, base, changes, command) for index in range(settings.engine_replicas)])


def _own(
    settings: Settings, index: int, base: BaseModel, changes: Changes, command: CommandBuilder | None
) -> Supervisor:
    port = settings.engine_port and settings.engine_port + index
    return Supervisor(
        settings=settings.model_copy(update={"engine_port": port}),
        base=base,
        changes=changes,
        command=command,
        name=f"engine-{index + 1}",
        log_name=f"engine-{index + 1}.log" if index else "engine.log",
    )
