"""Runs inside vLLM's API server (`--middleware`): closes every route that Hotlora does not use.

vLLM 0.32 checks its key below /v1 only. Below other paths any local program could generate (/invocations)
and load adapters (/adapters). Below /v1 other routes take templates, files and embeddings, which nothing of
ours sends there. Standard library only; this folder is all of ours that the engine can import.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

KEYED_PATHS = frozenset({"/v1/models", "/v1/completions", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"})
"""What the service uses; vLLM asks for the key there."""
OPEN_PATHS = frozenset({"/health", "/metrics", "/version"})
"""They tell figures and change nothing."""


class Guard:
    """Lets through `KEYED_PATHS` and `OPEN_PATHS`; answers 404 to all else."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope.get("path") in KEYED_PATHS | OPEN_PATHS:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
