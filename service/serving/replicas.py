"""Which engine answers: of those that have the model proven, the one with the least to do; another one where
that fails before it said anything.

Does not know what is asked, nor what versions are; whoever asks gives an exact name.
"""

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic
from typing import TypeVar

from service.changes import Changes
from service.engine.capacity import Capacity
from service.engine.face import Engine, EngineState
from service.engine.fleet import Fleet
from service.engine.wire import EngineLost, EngineRefused
from service.errors import Unavailable
from service.serving.outcomes import Outcomes, Refusal
from service.serving.routes import Route, Routes
from service.serving.served import Served
from trainer.config import BaseModel

PieceT = TypeVar("PieceT")

MOST_LOST_BY_ONE_REQUEST = 2
"""Engines that go away while they have a request. One may be chance; a third is not risked for a request that
may be what they died of."""

Ask = Callable[[Route], AsyncGenerator[PieceT, None]]
"""Asks one engine; nothing is said before the first piece."""


@dataclass(frozen=True, kw_only=True)
class Replica:
    """An engine of a base, as it stands."""

    name: str
    base_model: str
    state: EngineState
    message: str
    restarts: int
    generation: int
    capacity: Capacity
    """How many adapters it holds at a time."""
    models: tuple[str, ...]
    """Versions that are proven there, held or not."""
    refusals: Mapping[str, Refusal]
    """Versions that it does not serve, and why; also of adapters that are deleted by now."""

    @property
    def adapters(self) -> Mapping[str, int]:
        """How many, by kind: `slots`, `cached` at most, `proven`. Without what is not known."""
        known = {"slots": self.capacity.slots, "cached": self.capacity.cached, "proven": len(self.models)}
        return {kind: count for kind, count in known.items() if count is not None}


class Replicas:
    """See the module. Belongs to one event loop."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        served: Served,
        outcomes: Outcomes,
        routes: Routes,
        base: BaseModel,
        changes: Changes,
        clock: Callable[[], float] = monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`clock` is that of the engines' clients; `draw` decides between engines with equally much to do."""
        self._fleet = fleet
        self._served = served
        self._outcomes = outcomes
        self._routes = routes
        self._base = base
        self._changes = changes
        self._clock = clock
        self._draw = draw
        self._failed: dict[Engine, float] = {}
        """When engines last failed to begin an answer."""

    @property
    def fleet(self) -> Fleet:
        """The base's engines."""
        return self._fleet

    def status(self) -> list[Replica]:
        """All engines of the base."""
        return [
            Replica(
                name=engine.name,
                base_model=self._base.name,
                state=engine.state,
                message=engine.message,
                restarts=engine.restarts,
                generation=engine.generation,
                capacity=engine.capacity,
                models=tuple(sorted(self._served.proven(engine))),
                refusals=self._outcomes.refusals(engine),
            )
            for engine in self._fleet.engines
        ]

    def max_model_length(self, model: str) -> int:
        """Tokens that prompt and answer together may have, whichever engine of `model` answers."""
        engines = self._able(model) or self._fleet.engines
        lengths = (self._routes.of(model, engine).max_model_length for engine in engines)
        return min(lengths, default=self._fleet.max_model_length)

    def check(self, model: str) -> None:
        """Raises Unavailable where no engine would take a request for `model` now."""
        if self._able(model):
            return
        if self._fleet.state is not EngineState.READY:
            raise Unavailable("ENGINE_UNAVAILABLE", self._fleet.message, retry_seconds=5.0)
        raise Unavailable(
            "BEING_PROVEN", f"{model} is being loaded and proven again on a new engine", retry_seconds=2.0
        )

    async def ask(self, model: str, ask: Ask[PieceT]) -> AsyncGenerator[PieceT, None]:
        """The pieces of the first engine that gives one. Nothing is awaited before the answer is counted as
        that engine's, so that nothing is unloaded under it.

        Raises as `check` and `ask`; each engine is asked once at most, and none after the first piece, nor
        after `MOST_LOST_BY_ONE_REQUEST`.
        """
        self.check(model)
        tried: list[Engine] = []
        lost = 0
        while True:
            engine = self._choose(model, tried)
            tried.append(engine)
            begun = False
            try:
                with self._served.answering(engine, model):
                    route = self._routes.of(model, engine).on(engine.client)
                    async with aclosing(ask(route)) as pieces:
                        first = await self._first(pieces, engine, lambda: bool(self._left(model, tried)))
                        begun = True
                        yield first
                        async for piece in pieces:
                            yield piece
                return
            except (Unavailable, EngineRefused) as error:
                if begun or _is_about_the_request(error):
                    raise
                self._failed[engine] = self._clock()
                lost += isinstance(error, EngineLost)
                if lost == MOST_LOST_BY_ONE_REQUEST or not self._left(model, tried):
                    raise

    async def _first(
        self, pieces: AsyncGenerator[PieceT, None], engine: Engine, has_other: Callable[[], bool]
    ) -> PieceT:
        """The first piece. Raises EngineLost as soon as `engine` is seen to be away and there is another
        one: an engine that hangs keeps its connections open."""
        first = asyncio.ensure_future(anext(pieces))
        try:
            while not first.done():
                seen = self._changes.seen("engine")
                if engine.state is not EngineState.READY and has_other():
                    raise EngineLost(engine.message)
                told = asyncio.ensure_future(self._changes.wait("engine", seen))
                try:
                    await asyncio.wait({first, told}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    told.cancel()
            return first.result()
        finally:
            # Ended before its generator is closed, which may not run in two tasks at once.
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)

    def _able(self, model: str) -> tuple[Engine, ...]:
        return self._fleet.ready if model == self._base.name else self._served.engines(model)

    def _left(self, model: str, tried: Collection[Engine]) -> list[Engine]:
        return [engine for engine in self._able(model) if engine not in tried]

    def _choose(self, model: str, tried: Collection[Engine]) -> Engine:
        return min(
            self._left(model, tried),
            key=lambda engine: (
                self._is_doubtful(engine),
                self._served.answers_on(engine),
                not self._has_in_memory(engine, model),
                self._draw(),
            ),
        )

    def _has_in_memory(self, engine: Engine, model: str) -> bool:
        """Whether it would answer without reading an adapter again, which another one may still have."""
        try:
            return engine.client.has_in_memory(model)
        except Unavailable:
            return False

    def _is_doubtful(self, engine: Engine) -> bool:
        """Whether it failed and gave no token since: one that does nothing has the least to do."""
        try:
            return self._failed.get(engine, -math.inf) > engine.client.last_token_time
        except Unavailable:
            return True


def _is_about_the_request(error: Unavailable | EngineRefused) -> bool:
    """Whether another engine would say the same. One that lost an adapter, a key or its mind says more."""
    return isinstance(error, EngineRefused) and error.status == HTTPStatus.BAD_REQUEST
