"""Who may ask an engine now: different adapters in one batch are few, and take turns when more are wanted.

vLLM admits requests in the order they came, but passes over those whose adapter has no slot, so that adapters
which are asked without a pause keep their slots for ever, and the others starve. Here an adapter that had a
slot for a while gives it up to the one that waits longest: it begins no more answers until those it is giving
have ended. Nothing that is being answered is ever broken off.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

TURN_SECONDS = 2.0
"""How long an adapter keeps its slot though others wait. Shorter means more batches that run half empty
while answers end; longer means a longer wait for the others."""


class Slots:
    """The slots of one engine, as far as this service asks it. Belongs to one event loop."""

    def __init__(
        self,
        count: int | None = None,
        *,
        turn_seconds: float = TURN_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.count = count
        """Different adapters at a time; None: not known, and nobody waits here."""
        self._turn_seconds = turn_seconds
        self._clock = clock
        self._answers: Counter[str] = Counter()
        """Of adapters that have a slot."""
        self._since: dict[str, float] = {}
        """When they got it."""
        self._waiting: dict[asyncio.Future[None], tuple[str, float]] = {}
        """Adapters that want one, and since when; in the order of their arrival."""

    @asynccontextmanager
    async def hold(self, adapter: str) -> AsyncIterator[None]:
        """Wait for a slot, for however long that takes, and keep it for one answer."""
        await self._begin(adapter)
        try:
            yield
        finally:
            self._end(adapter)

    async def _begin(self, adapter: str) -> None:
        if self._may_begin(adapter):
            self._take(adapter)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = adapter, self._clock()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was given a slot that moment
                self._end(adapter)
            self._waiting.pop(turn, None)
            self._give()
            raise

    def _end(self, adapter: str) -> None:
        self._answers[adapter] -= 1
        if not self._answers[adapter]:
            del self._answers[adapter], self._since[adapter]
        self._give()

    def _give(self) -> None:
        """Let everybody begin who may, first come, first served."""
        for turn, (adapter, _) in list(self._waiting.items()):
            if self._may_begin(adapter):
                del self._waiting[turn]
                if not turn.done():
                    self._take(adapter)
                    turn.set_result(None)

    def _take(self, adapter: str) -> None:
        self._since.setdefault(adapter, self._clock())
        self._answers[adapter] += 1

    def _may_begin(self, adapter: str) -> bool:
        if self.count is None:
            return True
        if adapter in self._since:
            return adapter not in self._giving_up()
        return len(self._since) < self.count

    def _giving_up(self) -> set[str]:
        """As many as others wait, those first that had their slots longest; one more for each turn that these
        then still need to end what they are saying."""
        others = {adapter: since for adapter, since in self._waiting.values() if adapter not in self._since}
        if not others:
            return set()
        now = self._clock()
        overdue = int((now - min(others.values())) / self._turn_seconds)
        longest = sorted(self._since, key=lambda adapter: self._since[adapter])[: len(others) + overdue]
        return {adapter for adapter in longest if now - self._since[adapter] >= self._turn_seconds}
