"""All engines of a base model, replicas of each other, and what they are together.

Which replica has which adapter, and which one answers, is not known here.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from service.changes import Changes
from service.engine.attached import AttachedEngine
from service.engine.command import RANKS
from service.engine.discovery import Discovery, Resolver, resolve
from service.engine.face import Abilities, Engine, EngineState
from service.engine.supervisor import CommandBuilder, Supervisor
from service.engine.wire import unavailable
from service.settings import NAME_PREFIX, Settings, base_of, url_of
from trainer.config import BaseModel


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What engines are taken to serve while none is known."""

    max_rank: int = RANKS[-1]
    max_model_length: int = 2048


class Fleet:
    """Some engines, ready when one is. Those behind a name come and go while it runs."""

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        discoveries: Sequence[Discovery] = (),
        expected: Expected | None = None,
    ) -> None:
        if not engines and not discoveries:
            raise ValueError("there must be an engine")
        self._fixed = tuple(engines)
        self._discoveries = tuple(discoveries)
        self._expected = expected or Expected()

    @property
    def engines(self) -> tuple[Engine, ...]:
        """In the order of the settings, then those found behind names; their names differ."""
        found = (engine for discovery in self._discoveries for engine in discovery.engines)
        by_name: dict[str, Engine] = {}
        for engine in (*self._fixed, *found):
            by_name.setdefault(engine.name, engine)
        return tuple(by_name.values())

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
        best = (EngineState.READY, EngineState.STARTING)
        return next((state for state in best if state in states), EngineState.DOWN)

    @property
    def restarts(self) -> int:
        """Of all together."""
        return sum(engine.restarts for engine in self.engines)

    @property
    def message(self) -> str:
        """One sentence for a person."""
        engines = self.engines
        problems = [discovery.problem for discovery in self._discoveries if discovery.problem]
        if len(engines) == 1 and not problems:
            return engines[0].message
        others = [engine for engine in engines if engine.state is not EngineState.READY]
        said = [f"{engine.name}: {engine.message}" for engine in others]
        return "; ".join([f"{len(self.ready)} of {len(engines)} engines are ready", *said, *problems])

    @property
    def max_rank(self) -> int:
        """Highest adapter rank that all of them serve."""
        return min((engine.max_rank for engine in self.engines), default=self._expected.max_rank)

    @property
    def abilities(self) -> Abilities:
        """What at least one of them takes."""
        found = [engine.abilities for engine in self.engines] or [Abilities()]
        return Abilities(
            adapters=any(each.adapters for each in found), embeddings=any(each.embeddings for each in found)
        )

    @property
    def max_model_length(self) -> int:
        """Tokens that prompt and answer together may have, on each of them."""
        lengths = (engine.max_model_length for engine in self.engines)
        return min(lengths, default=self._expected.max_model_length)

    @property
    def supervised(self) -> bool:
        """Whether all are children of this service."""
        return not self._discoveries and all(engine.supervised for engine in self._fixed)

    async def run(self) -> None:
        """Keep all of them going, and look for more behind names, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for engine in self._fixed:
                tasks.create_task(engine.run())
            for discovery in self._discoveries:
                tasks.create_task(discovery.run())


def fleet(
    settings: Settings,
    *,
    base: BaseModel,
    changes: Changes,
    position: int = 0,
    command: CommandBuilder | None = None,
    resolver: Resolver = resolve,
) -> Fleet:
    """The engines that the settings have for a base: somebody else's where there are URLs, else our own,
    started by `command` as `Supervisor` takes it. `position` is the base's among all, 0 for the default."""
    names = (base.name,) if position else ("", base.name)
    urls = [url_of(url) for url in settings.engine_urls if base_of(url) in names]
    if not urls:
        first = position * settings.engine_replicas
        indices = range(first, first + settings.engine_replicas)
        return Fleet([_own(settings, index, base, changes, command) for index in indices])

    def attach(url: str) -> Engine:
        return AttachedEngine(url=url, settings=settings, base=base, changes=changes)

    named = [url.removeprefix(NAME_PREFIX) for url in urls if url.startswith(NAME_PREFIX)]
    return Fleet(
        [attach(url) for url in urls if not url.startswith(NAME_PREFIX)],
        discoveries=[Discovery(url=url, attach=attach, changes=changes, resolver=resolver) for url in named],
        expected=Expected(max_rank=settings.engine_max_rank, max_model_length=settings.engine_max_model_len),
    )


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
