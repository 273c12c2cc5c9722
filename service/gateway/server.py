"""The OpenAI-compatible door: models, completions of chats and texts, /healthz, /metrics, on loopback.

Relays and translates; what may answer and how is `service.serving.Chat`'s. A client that goes away takes its
answer at the engine with it.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from service import logs, traces
from service.engine.face import EngineState
from service.errors import HotloraError, NotFound
from service.gateway.choices import choices
from service.gateway.completions import DONE, ChatEnvelope, Envelope, TextEnvelope
from service.gateway.errors import (
    error_body,
    error_response,
    internal_error,
    internal_error_body,
    plain_error,
)
from service.gateway.fields import AnswersRequest
from service.gateway.requests import read_chat_request, read_text_request
from service.metrics import CONTENT_TYPE, Metrics
from service.registry import Registry, VersionState
from service.serving import Bases, Chat, ChatDelta, ServedModel, Serving

_log = structlog.get_logger(__name__)

MAX_BODY_BYTES = 8 << 20
"""A context of 2,048 tokens is some 10 KB; this is a bound against nonsense, not a budget."""
MAX_UNREAD_SECONDS = 60.0
"""A client that pauses for longer is mostly gone without a word, and the engine's place is another's."""
MODEL_HEADER = "Hotlora-Model"
"""Says which model answers."""
_REQUEST_ID = web.RequestKey("request_id", str)
_SHUTDOWN_SECONDS = 5.0
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""The same as they stand in Host."""


class Door(Protocol):
    """A part of the API."""

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add its routes."""


class Gateway:
    """The HTTP server."""

    def __init__(
        self,
        *,
        chat: Chat,
        bases: Bases,
        registry: Registry,
        metrics: Metrics,
        more: Sequence[Door] = (),
        address: str,
        max_unread_seconds: float = MAX_UNREAD_SECONDS,
        clock: Callable[[], float] = time.time,
        ids: Callable[[], str] = lambda: secrets.token_hex(12),
    ) -> None:
        """`more` are other parts of the API. `address` is HOST:PORT, port 0 for a free one. A client that
        reads nothing for `max_unread_seconds` has lost its answer. `clock` gives seconds since the epoch."""
        self._chat = chat
        self._bases = bases
        self._registry = registry
        self._metrics = metrics
        self._more = more
        self._host, _, port = address.rpartition(":")
        self._wanted_port = int(port)
        self._max_unread_seconds = max_unread_seconds
        self._clock = clock
        self._ids = ids
        self._started = int(clock())
        self._port: asyncio.Future[int] | None = None

    async def run(self) -> None:
        """Serve until cancelled; then end running answers. Raises OSError where the address is taken."""
        runner = web.AppRunner(
            self.app(), handler_cancellation=True, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host.strip("[]"), self._wanted_port)
            await site.start()
            port = runner.addresses[0][1]
            _log.info("gateway listens", port=port)
            self._bound().set_result(port)
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def port(self) -> int:
        """The port it listens on, as soon as it does."""
        return await asyncio.shield(self._bound())

    def app(self) -> web.Application:
        """The application, for a server or a test."""
        app = web.Application(
            middlewares=[self._named, self._locals_only, self._errors], client_max_size=MAX_BODY_BYTES
        )
        app.on_response_prepare.append(_tell_id)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/metrics", self._figures)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{model:.+}", self._model)
        app.router.add_post(
            "/v1/chat/completions",
            partial(self._completions, read_chat_request, ChatEnvelope),
        )
        app.router.add_post("/v1/completions", partial(self._completions, read_text_request, TextEnvelope))
        for door in self._more:
            door.add_to(app.router)
        return app

    def _bound(self) -> asyncio.Future[int]:
        if self._port is None:
            self._port = asyncio.get_running_loop().create_future()
        return self._port

    @web.middleware
    async def _named(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Each call has an id, the client's own where it gave one: in the log, and in the answer."""
        request_id = logs.request_id(request.headers.get(logs.REQUEST_ID))
        request[_REQUEST_ID] = request_id
        resource = request.match_info.route.resource
        route = "" if resource is None else resource.canonical  # a path of nothing may be anything
        method = f"{request.method} {route}" if route else ""
        about = {"http.request.method": request.method, "http.route": route, logs.REQUEST_ID: request_id}
        sent = {name.lower(): value for name, value in request.headers.items()}
        status = "cancelled"
        try:
            with logs.of_request(request_id), traces.incoming(method or request.method, sent, about):
                response = await handler(request)
                status = str(response.status)
                told = {"http.response.status_code": response.status}
                if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    traces.failed(status, told)
                traces.note(told)
                return response
        finally:
            self._metrics.called("http", method, status)

    @web.middleware
    async def _locals_only(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.host.rpartition(":")[0] not in _LOCAL_HOSTS and request.host not in _LOCAL_HOSTS:
            # A page of a stranger whose name resolves to this machine must not talk to it (DNS rebinding).
            return plain_error(403, "this server answers to localhost only", "wrong_host")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).hostname not in _LOCAL_NAMES:
            # Nor may it send forms here, which browsers do without asking: they could upload and cancel.
            return plain_error(403, "pages of other machines may not use this server", "wrong_origin")
        return await handler(request)

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except HotloraError as error:
            return error_response(error)
        except web.HTTPRequestEntityTooLarge:
            return plain_error(413, f"a request may have up to {MAX_BODY_BYTES} bytes", "too_large")
        except web.HTTPException as error:
            return plain_error(
                error.status, f"{request.method} {request.path}: {error.reason}", "no_such_route"
            )
        except Exception:
            error_id = self._ids()
            _log.exception("gateway failed", error_id=error_id, path=request.path)
            return internal_error(error_id)

    async def _healthz(self, _: web.Request) -> web.Response:
        """200 when some base model answers, else 503; the body says where its engines stand, and those of
        each."""
        answering = [base.fleet for base in self._bases if base.fleet.state is EngineState.READY]
        ready, fleet = bool(answering), [*answering, self._bases.default.fleet][0]
        body = {
            "ready": ready,
            "engine": fleet.state,
            "message": fleet.message,
            "base_models": {
                base.name: {"engine": base.fleet.state, "message": base.fleet.message} for base in self._bases
            },
        }
        return web.json_response(body, status=200 if ready else 503)

    async def _figures(self, _: web.Request) -> web.Response:
        """What Prometheus reads."""
        unfinished = await self._registry.unfinished_job_counts()
        text = self._metrics.text(
            jobs={state.value: count for state, count in unfinished.items()},
            engines=self._chat.standings(),
        )
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": await self._cards()})

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        for card in await self._cards():
            if card["id"] == name:
                return web.json_response(card)
        raise NotFound("MODEL_NOT_FOUND", f"there is no model {name[:256]!r}")

    async def _cards(self) -> list[dict[str, object]]:
        """The bases, and of each adapter its names and every ACTIVE version. The root of a name is the
        version that answers most of its requests."""
        names: dict[str, dict[str, tuple[int, float]]] = {}
        for alias in await self._chat.aliases():
            names.setdefault(alias.adapter_id, {})[alias.model] = alias.main_version, alias.create_time
        cards: list[dict[str, object]] = []
        listed: set[str] = set()
        for model in await self._chat.models():
            version = model.version
            if version is None:
                cards.append(_card(model.id, model, self._started))
            elif version.state == VersionState.ACTIVE and model.serving is not Serving.NONE:
                of_adapter = names.setdefault(version.adapter_id, {})
                # Versions come newest first, which is what the plain name means without an alias of its own.
                of_adapter.setdefault(version.adapter_id, (version.number, version.create_time))
                for name, (number, created) in of_adapter.items():
                    if number == version.number and name not in listed:
                        listed.add(name)
                        cards.append(_card(name, model, int(created)))
                cards.append(_card(model.id, model, int(version.create_time)))
        return cards

    async def _completions(
        self, read: Callable[[bytes], AnswersRequest], shape: type[Envelope], request: web.Request
    ) -> web.StreamResponse:
        if request.content_type != "application/json":
            return plain_error(415, "send application/json", "wrong_media_type")
        asked = read(await request.read())
        async with aclosing(choices(self._chat, asked.turn, asked.choices)) as pieces:
            # Errors before the first piece are answers of their own, with a status.
            begun, first = await anext(pieces)
            envelope = shape(answer_id=self._ids(), created=int(self._clock()), model=first.model)
            if asked.stream:
                return await self._stream(request, asked, envelope, (begun, first), pieces)
            answers: list[list[ChatDelta]] = [[] for _ in range(asked.choices)]
            answers[begun].append(first)
            async for index, delta in pieces:
                answers[index].append(delta)
            return web.Response(
                text=envelope.whole(answers),
                content_type="application/json",
                headers={MODEL_HEADER: first.model},
            )

    async def _stream(
        self,
        request: web.Request,
        asked: AnswersRequest,
        envelope: Envelope,
        first: tuple[int, ChatDelta],
        pieces: AsyncGenerator[tuple[int, ChatDelta], None],
    ) -> web.StreamResponse:
        headers = {
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            MODEL_HEADER: first[1].model,
        }
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            async with aclosing(self._events(asked, envelope, first, pieces)) as events:
                async for event in events:
                    await self._write(request, response, event)
        return response

    async def _write(self, request: web.Request, response: web.StreamResponse, event: bytes) -> None:
        """Raises ConnectionError when the client is gone, or reads nothing for too long."""
        try:
            async with asyncio.timeout(self._max_unread_seconds):
                await response.write(event)
        except TimeoutError as error:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionAbortedError("the client does not read its answer") from error

    async def _events(
        self,
        asked: AnswersRequest,
        envelope: Envelope,
        first: tuple[int, ChatDelta],
        pieces: AsyncGenerator[tuple[int, ChatDelta], None],
    ) -> AsyncGenerator[bytes, None]:
        """The answers as events. The status is sent by now, so an error is an event too, and no [DONE]
        follows."""
        usage = asked.include_usage
        last = dict([first])
        yield envelope.chunk(*first, include_usage=usage)
        try:
            async for index, delta in pieces:
                yield envelope.chunk(index, delta, include_usage=usage)
                last[index] = delta
        except HotloraError as error:
            traces.failed(error.reason, {})
            yield f"data: {error_body(error)}\n\n".encode()
        except Exception:
            error_id = self._ids()
            _log.exception("gateway failed within a stream", error_id=error_id)
            traces.failed("INTERNAL", {})
            yield f"data: {internal_error_body(error_id)}\n\n".encode()
        else:
            yield (envelope.usage_chunk(list(last.values())) if usage else b"") + DONE


async def _tell_id(request: web.Request, response: web.StreamResponse) -> None:
    response.headers[logs.REQUEST_ID] = request[_REQUEST_ID]


def _card(name: str, model: ServedModel, created: int) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "hotlora",
        "root": model.id,
        "parent": None if model.version is None else model.base_model,
        "max_model_len": model.max_model_length,
    }
