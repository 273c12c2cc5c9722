"""Runs inside vLLM's API server (`--middleware`): closes the routes that vLLM's API key does not guard.

vLLM 0.32 checks its key below /v1 only. Below other paths any local program could generate (/invocations)
and load adapters (/adapters). Nothing of ours needs them. Standard library only; this folder is all of ours
that the engine can import.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset({"/health", "/metrics", "/version"})
"""They tell figures and change nothing."""


class Guard:
    """Lets through what vLLM's key guards, and `OPEN_PATHS`; answers 404 to all else."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", ""))
        if scope["type"] == "lifespan" or path.startswith("/v1/") or path in OPEN_PATHS:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
