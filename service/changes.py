"""Tells waiting tasks of this process that something changed; says never what.

Topics: `jobs`, `job/{id}`, `versions`, `version/{adapter}@{number}`, `evaluations`, `evaluation/{id}`,
`engine`. A waiter reads the truth (the registry, the engine) after each wake-up. Wake-ups may be spurious;
they are never lost. Changes made by another process on the same database are not heard here, so whoever waits
for one passes a timeout and looks again. Of `engine` all changes are made here.

Use:
    seen = changes.seen(topic)          # before reading
    ...read the registry...
    seen = await changes.wait(topic, seen, timeout_seconds=5)
"""

import asyncio
from collections import OrderedDict

_MAX_TOPICS = 4096
"""Counters kept. A forgotten topic counts as just changed: fewer would cause more spurious wake-ups."""


class Changes:
    """A broadcaster with one counter a topic. Belongs to one event loop; not for threads."""

    def __init__(self) -> None:
        self._count = 0
        self._floor = 0
        self._latest: OrderedDict[str, int] = OrderedDict()
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}

    def notify(self, topic: str) -> None:
        """Wake everyone who waits for `topic`."""
        self._count += 1
        self._latest[topic] = self._count
        self._latest.move_to_end(topic)
        if len(self._latest) > _MAX_TOPICS:
            _, self._floor = self._latest.popitem(last=False)
        for waiter in self._waiters.get(topic, ()):
            if not waiter.done():
                waiter.set_result(None)

    def seen(self, topic: str) -> int:
        """Counter of `topic`. Take it before reading what the topic is about."""
        return self._latest.get(topic, self._floor)

    async def wait(self, topic: str, seen: int, timeout_seconds: float | None = None) -> int:
        """Return the counter as soon as it differs from `seen`, or the same one after `timeout_seconds`; None
        waits for as long as it takes."""
        if self.seen(topic) == seen:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiters = self._waiters.setdefault(topic, set())
            waiters.add(waiter)
            try:
                await asyncio.wait([waiter], timeout=timeout_seconds)
            finally:
                waiters.discard(waiter)
                if not waiters and self._waiters.get(topic) is waiters:
                    del self._waiters[topic]
        return self.seen(topic)

    async def wake(self, event: asyncio.Event, topic: str, *, period_seconds: float) -> None:
        """Set `event` at each change, and at least every `period_seconds`, until cancelled."""
        seen = self.seen(topic)
        while True:
            seen = await self.wait(topic, seen, timeout_seconds=period_seconds)
            event.set()
