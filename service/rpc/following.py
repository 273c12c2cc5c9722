"""Waits for changes on behalf of a watch, until the server begins to end."""

import asyncio

from service.changes import Changes
from service.rpc.boundary import Drain

LOOK_AGAIN_SECONDS = 10.0
"""A change that another process made on the same database is not announced here; it is found this late."""


class Following:
    """Wakes a watch up. One per server."""

    def __init__(self, *, changes: Changes, drain: Drain) -> None:
        self._changes = changes
        self._drain = drain

    def seen(self, topic: str) -> int:
        """Where the topic stands. To be taken before reading what it is about."""
        return self._changes.seen(topic)

    async def changed(self, topic: str, seen: int) -> int:
        """Return where the topic stands as soon as that is not `seen`, or after 10 s.

        Raises Unavailable when the server begins to end: a caller reconnects with its cursor.
        """
        change = asyncio.ensure_future(self._changes.wait(topic, seen, LOOK_AGAIN_SECONDS))
        end = asyncio.ensure_future(self._drain.begun())
        try:
            await asyncio.wait({change, end}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            change.cancel()
            end.cancel()
        self._drain.refuse_if_begun()
        return self._changes.seen(topic)
