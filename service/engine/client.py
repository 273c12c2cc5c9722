"""Client of one vLLM server: models, load, unload, log-probabilities of a prompt, streamed answers.

Speaks the OpenAI-compatible HTTP of vLLM 0.32 over TCP or a UNIX socket, always with token ids or embeddings:
the engine's own template is never used. Knows nothing of versions, artifacts, or whether an engine should be
restarted.

Two kinds of failure: `EngineRefused` (the engine answered, and said no) and `Unavailable` (no whole answer
came, so what happened there is unknown; `EngineLost` where it had the request). After an unknown outcome look
again with `models`.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic
from typing import Final

import aiohttp

from service import traces
from service.ahead import read_ahead
from service.engine.cached import CachedAdapters
from service.engine.capacity import UNKNOWN, Capacity
from service.engine.embeddings import Dtype, PromptEmbeddings
from service.engine.slots import Slots
from service.engine.sse import SseError, SseParser
from service.engine.wire import (
    Answer,
    Chunk,
    EngineLost,
    EngineModel,
    EngineRefused,
    Prompt,
    Sampling,
    completion_request,
    next_logprob_request,
    read_error,
    read_models,
    read_next_logprob,
    read_object,
    read_prompt_logprobs,
    read_slots,
    unavailable,
)
from service.errors import Unavailable
from service.jsonshape import Json

MAX_BODY_BYTES: Final = 16 << 20
"""Bound of an answer that is not a stream; 2,048 log-probabilities are some 200 KB."""
IDLE_SECONDS: Final = 2.0
"""How long a connection stays open for the next call. Less than at an engine (vLLM: 5 s), which may close one
just as it is used again; such a call fails, since only a read may be repeated unasked."""
_CHUNKS_AHEAD: Final = 2048
"""Of an answer that wait for a slow reader: all of most answers, and a few hundred KB."""
_NOT_REACHED: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_MISSED: Final = (aiohttp.ClientError, TimeoutError, OSError)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long the engine may take, in seconds."""

    connect_seconds: float = 5.0
    """Per try, until the connection stands."""
    call_seconds: float = 30.0
    """Whole of `models` and `unload_adapter`."""
    load_seconds: float = 120.0
    """Whole of `load_adapter`; the engine decodes for nobody meanwhile."""
    measure_seconds: float = 120.0
    """Whole of `prompt_logprobs`."""
    slot_seconds: float = 120.0
    """Until an adapter has a place among those that are asked at the same time."""
    stream_idle_seconds: float = 120.0
    """Between two pieces of a stream; the first one waits for its place in the batch."""
    stream_seconds: float = 3600.0
    """Whole of a stream."""


class EngineClient:
    """One connection pool to one engine. Close it when the engine is gone."""

    def __init__(
        self,
        *,
        url: str,
        api_key: str | None = None,
        unix_socket: str | None = None,
        limits: Limits | None = None,
        base: str = "",
        capacity: Capacity = UNKNOWN,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`url` without a path, for example http://127.0.0.1:8000; with `unix_socket` its host is only a
        name. `base` is the model that takes no place of an adapter's, `capacity` how many of these there are.
        """
        self.url = url.rstrip("/")
        self.headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        """What the engine wants to see; carries the key."""
        self._unix_socket = unix_socket
        self._limits = limits or Limits()
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._reading: set[aiohttp.ClientResponse] = set()
        self._base = base
        self._slots = Slots(capacity.slots, clock=clock)
        self._cached = CachedAdapters(capacity.cached)
        self.last_token_time = -math.inf
        """Monotonic seconds when this client last saw a token or a measured prompt."""

    @property
    def loaded(self) -> frozenset[str]:
        """Adapters loaded and not unloaded through this client; serves only to notice that an engine
        forgot."""
        return self._cached.loaded

    def forget_loaded(self) -> None:
        """The engine forgot every adapter; stop expecting them."""
        self._cached.clear()

    def know(self, capacity: Capacity) -> None:
        """What is known of the engine now."""
        self._slots.count, self._cached.most = capacity.slots, capacity.cached

    def has_in_memory(self, adapter: str) -> bool:
        """Whether the engine needs to read nothing to answer as `adapter`, as far as can be guessed."""
        return self._cached.has(adapter)

    async def close(self) -> None:
        """Close all connections; streams in flight end with Unavailable."""
        for response in tuple(self._reading):
            response.close()  # who reads it would never hear of a session that is closed under it
        if self._session is not None:
            await self._session.close()

    async def models(self) -> tuple[EngineModel, ...]:
        """What is loaded now. Raises Unavailable when the engine cannot be asked; never an empty guess."""
        async with self._call("GET", "/v1/models", None, self._limits.call_seconds) as response:
            return read_models(await _json(response))

    async def load_adapter(self, *, name: str, path: str) -> None:
        """Have the engine read the adapter at `path` and serve it as `name`; loaded already from there is
        success.

        The state observed afterwards decides, not the answer. Raises EngineRefused when the engine lives
        and does not have it, Unavailable when that cannot be told.
        """
        refused: EngineRefused | None = None
        try:
            await self._post(
                "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path}, self._limits.load_seconds
            )
        except EngineRefused as error:
            refused = error
        except Unavailable:
            pass
        else:
            self._cached.load(name, path)
            return
        seen = {model.name: model for model in await self.models()}
        if name in seen and seen[name].path == path:
            self._cached.load(name, path)
            return
        if name in seen:
            raise EngineRefused(HTTPStatus.CONFLICT, f"{name} is loaded from another directory")
        raise refused or unavailable(
            f"the engine gave no answer to loading {name}, and has not loaded it yet"
        )

    async def unload_adapter(self, name: str) -> None:
        """Have the engine forget `name`; not there is success. Raises EngineRefused and Unavailable as
        above."""
        refused: EngineRefused | None = None
        try:
            await self._post("/v1/unload_lora_adapter", {"lora_name": name}, self._limits.call_seconds)
        except EngineRefused as error:
            refused = error
        except Unavailable:
            pass
        else:
            self._cached.unload(name)
            return
        if any(model.name == name for model in await self.models()):
            raise refused or unavailable(f"the engine gave no answer to unloading {name}, and still has it")
        self._cached.unload(name)

    async def prompt_logprobs(self, *, model: str, token_ids: Sequence[int]) -> tuple[float, ...]:
        """Log-probability (nats) of each token but the first, given those before it: `len(token_ids) - 1`
        numbers.

        Raises EngineRefused when the engine would not or could not compute them, Unavailable otherwise.
        """
        ids = list(token_ids)
        request = {"model": model, "prompt": ids, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        async with self._asking(model):
            body = await self._post("/v1/completions", request, self._limits.measure_seconds)
        logprobs = read_prompt_logprobs(body, ids)
        self.last_token_time = self._clock()
        return logprobs

    async def next_logprob(self, *, model: str, prompt: Prompt, token: int) -> float:
        """Log-probability (nats) of `token` right after `prompt`. Raises as `prompt_logprobs`."""
        request = await asyncio.to_thread(next_logprob_request, model, prompt, token)
        async with self._asking(model):
            body = await self._post("/v1/completions", request, self._limits.measure_seconds)
        found = read_next_logprob(body, token)
        self.last_token_time = self._clock()
        return found

    async def produce_token(self, model: str) -> None:
        """Have the engine generate one token: the only proof that it lives. Raises as `prompt_logprobs`."""
        request = {"model": model, "prompt": [1], "max_tokens": 1, "temperature": 0.0}
        await self._post("/v1/completions", request, self._limits.measure_seconds)
        self.last_token_time = self._clock()

    async def adapter_slots(self) -> int | None:
        """Different adapters that it takes into one batch; None where it does not tell. Raises
        Unavailable."""
        figures = bytearray()
        try:
            async with self._call("GET", "/metrics", None, self._limits.call_seconds) as response:
                async for piece in response.content.iter_any():
                    figures += piece
                    if len(figures) > MAX_BODY_BYTES:  # it tells of every mix of adapters that it ever ran
                        break
        except EngineRefused:
            return None
        return read_slots(figures)

    async def takes_adapters(self) -> bool:
        """Whether it loads adapters while it runs: where that is not allowed, it has no such route. Raises as
        above."""
        return await self._refusal("/v1/load_lora_adapter", {}) != HTTPStatus.NOT_FOUND

    async def takes_embeddings(self, *, model: str, width: int) -> bool:
        """Whether it answers a prompt of one embedding of `width` numbers. Raises as above."""
        prompt = PromptEmbeddings(rows=bytes(2 * width), width=width, dtype=Dtype.BFLOAT16)
        request = next_logprob_request(model, prompt, 0)
        return await self._refusal("/v1/completions", request) != HTTPStatus.BAD_REQUEST

    async def _refusal(self, path: str, request: Json) -> int | None:
        """The status with which it refuses; None where it does not."""
        try:
            await self._post(path, request, self._limits.call_seconds)
        except EngineRefused as error:
            return error.status
        return None

    async def stream(self, *, model: str, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """Stream an answer. The last chunk, and only that, has a finish_reason.

        Raises EngineRefused before the first chunk, Unavailable at any time: an answer that is cut
        anywhere, ends without a reason, is aborted or carries an error is not an answer. Closing the
        iterator frees the engine. An adapter's answer is read as it comes, up to `_CHUNKS_AHEAD`: whoever
        takes it slowly keeps no place in the engine that others wait for.
        """
        chunks = self._stream(model, prompt, sampling)
        if model == self._base:
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk
            return
        async with aclosing(read_ahead([chunks], _CHUNKS_AHEAD)) as pieces:
            async for _, chunk in pieces:
                yield chunk

    async def _stream(self, model: str, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        request = (
            await asyncio.to_thread(completion_request, model, prompt, sampling)
            if isinstance(prompt, PromptEmbeddings)
            else completion_request(model, prompt, sampling)
        )
        parser, answer = SseParser(), Answer(sampling.logprobs)
        limit = self._limits.stream_seconds
        idle = self._limits.stream_idle_seconds
        async with (
            self._asking(model),
            self._call("POST", "/v1/completions", request, limit, idle) as response,
        ):
            async for piece in response.content.iter_any():
                try:
                    chunk = answer.take(parser.feed(piece))
                except (SseError, KeyError, TypeError) as error:
                    raise unavailable("the engine's stream could not be read") from error
                if chunk is not None:
                    self.last_token_time = self._clock()
                    yield chunk
                if answer.done:
                    break
            if not answer.done or parser.rest:
                raise unavailable("the engine's answer was cut short")

    @asynccontextmanager
    async def _asking(self, model: str) -> AsyncIterator[None]:
        """Wait for the model's place in the engine, and have it while asking. Raises Unavailable where its
        files are away, which would end the engine, or no place becomes free."""
        if model == self._base:
            yield
            return
        async with AsyncExitStack() as place:
            try:
                async with asyncio.timeout(self._limits.slot_seconds):
                    await place.enter_async_context(self._slots.hold(model))
            except TimeoutError:
                raise unavailable(
                    f"too many other adapters are being asked; {model} waits for them"
                ) from None
            if not self._cached.has(model) and await asyncio.to_thread(self._cached.lacks_files, model):
                raise unavailable(f"the files of {model} cannot be read now")
            self._cached.use(model)
            try:
                yield
            finally:
                self._cached.use(model)

    async def _post(self, path: str, request: Json, limit_seconds: float) -> Json:
        async with self._call("POST", path, request, limit_seconds) as response:
            if response.content_type != "application/json":
                await response.content.read(MAX_BODY_BYTES)
                return {}
            return await _json(response)

    @asynccontextmanager
    async def _call(
        self,
        method: str,
        path: str,
        request: Json | None,
        limit_seconds: float,
        idle_seconds: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(
            total=limit_seconds, sock_connect=self._limits.connect_seconds, sock_read=idle_seconds
        )
        about = {"http.request.method": method, "url.path": path, "server.address": self.url}
        if request is not None and isinstance(model := request.get("model"), str):
            about["gen_ai.request.model"] = model
        with traces.outgoing(f"{method} {path}", about) as (span, headers):
            try:
                response = await self._open().request(
                    method, self.url + path, json=request, timeout=timeout, headers=headers
                )
            except _NOT_REACHED as error:
                raise unavailable(f"the engine does not answer ({type(error).__name__})") from error
            except _MISSED as error:
                raise EngineLost(f"the engine did not answer ({type(error).__name__})") from error
            span.set_attribute("http.response.status_code", response.status)
            self._reading.add(response)
            try:
                if response.status != HTTPStatus.OK:
                    raise EngineRefused(response.status, read_error(await response.content.read(65_536)))
                yield response
            except _MISSED as error:
                raise EngineLost(f"the engine's answer broke off ({type(error).__name__})") from error
            finally:
                self._reading.discard(response)
                # Not release: an answer that was not read to its end must end at the engine too, at once.
                response.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # limit=0: Chat bounds the number of answers; a pool bound would queue health probes behind them.
            connector = (
                aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS)
                if self._unix_socket is None
                else aiohttp.UnixConnector(self._unix_socket, limit=0, keepalive_timeout=IDLE_SECONDS)
            )
            self._session = aiohttp.ClientSession(
                connector=connector, headers=self.headers, auto_decompress=False
            )
        elif self._session.closed:
            raise unavailable("the engine is being restarted")
        return self._session


async def _json(response: aiohttp.ClientResponse) -> Json:
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > MAX_BODY_BYTES:
            raise unavailable(f"the engine's answer is longer than {MAX_BODY_BYTES} bytes")
    return read_object(content)
