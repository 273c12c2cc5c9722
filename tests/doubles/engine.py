"""A vLLM that computes nothing: the routes, shapes and codes of vLLM 0.32's API server, and switches to
misbehave.

Log-probabilities are those of `tests.doubles.arithmetic`, of the adapter's weights file or of the virtual
tokens before a prompt of embeddings, so that a canary can be written that fits an adapter, or another one's.
`tests/service/test_engine_real.py` asks this and the real server the same things and compares the answers.

    python -m tests.doubles.engine --port 0 --model DIRECTORY --served-model-name base

runs it as a process of its own, for tests of supervision.
"""

import argparse
import asyncio
import base64
import binascii
import contextlib
import io
import json
import os
import pickle
import signal
import socket
import sys
import time
import zipfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from aiohttp import web
from aiohttp.typedefs import Handler

from tests.doubles.arithmetic import logprob, logprobs
from tests.doubles.listening import accept_no_more, listening

BATCH_SECONDS = 0.02
"""Where batches count, requests that come within it share one."""
WORDS = ("all ", "is ", "well ", "with ", "this ", "engine ", "today ", "and ")
MOST_LOGPROBS = 20
"""At a place of an answer; of more vLLM says within the stream that it would not."""
EMPTY_MOVE = b""
"""Weights that move nothing: what a name that matches no module amounts to."""


@dataclass(kw_only=True)
class Faults:
    """Ways to misbehave; all off."""

    swapped: dict[str, str] = field(default_factory=dict)
    """Adapters served with another adapter's weights."""
    as_base: set[str] = field(default_factory=set)
    """Adapters served with the base's weights alone."""
    refused_loads: set[str] = field(default_factory=set)
    lost_answers: set[str] = field(default_factory=set)
    """Paths (such as /v1/load_lora_adapter) that do what was asked, and then drop the connection, once
    each."""
    bad_gateways: set[str] = field(default_factory=set)
    """Paths that a proxy before the engine answers with 502."""
    dies_at_load: set[str] = field(default_factory=set)
    dies_at_answer: set[str] = field(default_factory=set)
    """Models whose streamed answers end it; being measured does not."""
    stalled_loads: set[str] = field(default_factory=set)
    """Adapters whose load never answers and never happens."""
    without_loading: bool = False
    """Whether it was started without VLLM_ALLOW_RUNTIME_LORA_UPDATING."""
    without_prompt_embeds: bool = False
    """Whether it was started without --enable-prompt-embeds."""
    deaf_to_virtual_tokens: bool = False
    """Whether rows that are no token's are served as if they were not there."""
    mixing_slots: int | None = None
    """Slots for adapters of an engine with the stock CPU operators: a request for the base that shares a
    batch with an adapter's is answered with what lies in the last slot. None: the base stays itself."""
    broken_weights: set[str] = field(default_factory=set)
    """Adapters that every computation fails with."""
    cut_stream_at: int | None = None
    """Bytes of a streamed answer after which the connection is dropped."""
    finish_reason: str | None = "stop"
    """What an answer ends with instead of stop; None: it ends without."""
    error_event_at: int | None = None
    """Token before which an error event comes, on HTTP 200."""
    hanging: bool = False
    """Whether nothing but /health is answered."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """An adapter in the engine."""

    path: str
    weights: bytes


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A prompt, whichever way it came."""

    token_ids: list[int]
    virtual: bytes
    """Rows of the embeddings before the tokens that are no token's."""
    length: int
    """Places of the context that it takes."""


class EngineDouble:
    """The server. Use it as an async context manager; `url` says where it is."""

    def __init__(
        self,
        *,
        base_name: str = "base",
        base_path: str = "/models/base",
        max_model_length: int = 2048,
        embeddings: Sequence[bytes] = (),
        own_weights: bytes | None = None,
        api_key: str | None = None,
        noise: float = 0.003,
        answer_tokens: int = 5,
        token_seconds: float = 0.0,
        exits: bool = False,
        host: str = "127.0.0.1",
    ) -> None:
        """`embeddings` are the rows of its embedding matrix. `own_weights` make it another model than the
        base (None). `exits`: whether dying ends the process, not
        only every connection. `noise`: how far its log-probabilities are from `logprobs`, as another
        implementation's would be. `host` is a loopback address; several may have one port."""
        self.base_name = base_name
        self.faults = Faults()
        self.adapters: dict[str, Loaded] = {}
        self.calls: Counter[str] = Counter()
        """Requests by path."""
        self.traceparents: list[str] = []
        """Of the traces that completions were asked in."""
        self.streams = 0
        """Streamed answers being given now."""
        self.stream_ended = asyncio.Event()
        """Set whenever a streamed answer ends, however it does."""
        self.broken_off: Counter[str] = Counter()
        """Streamed answers by model that ended before they were said."""
        self.dead = False
        """Whether every connection is dropped, until `restart`."""
        self.stalled_completions = False
        """Whether completions never answer, while everything else does."""
        self.died = asyncio.Event()
        """Set when it died; whoever plays the supervisor clears it."""
        self.respond: Callable[[Mapping[str, object]], Sequence[str]] | None = None
        """When set, gives the tokens of a streamed answer from the fields of its request."""
        self.hold: asyncio.Event | None = None
        """When set, streams wait for it after their first token."""
        self.holds: dict[str, asyncio.Event] = {}
        """The same for the streams of one model, by its name; its whole answers wait before they are given.
        """
        self._base_path = base_path
        self._max_model_length = max_model_length
        self._own_weights = own_weights
        self._tokens = {row: token for token, row in enumerate(embeddings)}
        self._api_key = api_key
        self._noise = noise
        self._answer_tokens = answer_tokens
        self._token_seconds = token_seconds
        self._exits = exits
        self._host = host
        self._batch: list[str] = []
        """Models of the requests that are computed together, where that counts."""
        self._slots: list[bytes] = []
        """Weights of every adapter since the start: unloading one does not empty its slot."""
        self._runner: web.AppRunner | None = None
        self._listening: socket.socket | None = None
        self.port = 0
        self.slots = 4
        """Different adapters in one batch, as it tells."""

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}"

    async def __aenter__(self) -> "EngineDouble":
        await self.start(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, port: int) -> None:
        """Listen on a port of the host; 0 means a free one."""
        app = web.Application(middlewares=[self._gate])
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._figures)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        app.router.add_post("/v1/completions", self._completions)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        self._listening = listening(self._host, port)
        self.port = self._listening.getsockname()[1]
        await web.SockSite(self._runner, self._listening).start()

    async def stop(self) -> None:
        """Drop every connection and forget every adapter, as a killed engine does."""
        self.adapters.clear()
        self._slots.clear()
        if self._runner is not None and self._listening is not None:
            await accept_no_more(self._listening)
            await self._runner.cleanup()
            self._runner = self._listening = None

    async def restart(self) -> None:
        """Come back empty at the same address."""
        await self.stop()
        self.dead = False
        await self.start(self.port)

    @web.middleware
    async def _gate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.calls[request.path] += 1
        if self.dead:
            _drop(request)
        authorized = (
            self._api_key is None or request.headers.get("Authorization") == f"Bearer {self._api_key}"
        )
        if request.path.startswith("/v1") and not authorized:
            return web.json_response({"error": "Unauthorized"}, status=401)
        if self.faults.hanging and request.path != "/health":
            await asyncio.Event().wait()
        if request.path in self.faults.bad_gateways:
            return web.Response(status=502, text="Bad Gateway")
        response: web.StreamResponse = await handler(request)
        if request.path in self.faults.lost_answers:
            self.faults.lost_answers.discard(request.path)
            _drop(request)
        return response

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _figures(self, _: web.Request) -> web.Response:
        labels = f'max_lora="{self.slots}",running_lora_adapters="",waiting_lora_adapters=""'
        name = "vllm:lora_requests_info"
        about = f"# HELP {name} Running stats on lora requests.\n# TYPE {name} gauge\n"
        return web.Response(text=f"{about}{name}{{{labels}}} {time.time()}\n")

    async def _models(self, _: web.Request) -> web.Response:
        base = _card(self.base_name, self._base_path, None, {"max_model_len": self._max_model_length})
        cards = [
            _card(name, loaded.path, self.base_name, {"max_model_len": None})
            for name, loaded in self.adapters.items()
        ]
        return web.json_response({"object": "list", "data": [base, *cards]})

    async def _load(self, request: web.Request) -> web.Response:
        if self.faults.without_loading:
            return web.json_response({"detail": "Not Found"}, status=404)
        fields = await request.json()
        if not {"lora_name", "lora_path"} <= set(fields):
            return _error(400, "Bad Request", "2 validation errors: Field required", param="body.lora_name")
        name, path = fields["lora_name"], fields["lora_path"]
        if name in self.faults.dies_at_load:
            self.die(request)
        if name in self.faults.stalled_loads:
            await asyncio.Event().wait()
        if name in self.adapters:
            text = (
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place"
            )
            return _error(400, "InvalidUserInput", f"{text}, set 'load_inplace' to True.")
        weights = Path(path) / "adapter_model.safetensors"
        if not weights.is_file():
            return _error(404, "NotFoundError", f"Loading lora {name} failed: No adapter found for <path>")
        if name in self.faults.refused_loads:
            return _error(500, "InternalServerError", "Call to add_lora method failed: unexpected modules")
        self.adapters[name] = Loaded(path=path, weights=weights.read_bytes())
        self._slots.append(self.adapters[name].weights)
        return web.Response(body=f"Success: LoRA adapter '{name}' added successfully.".encode())

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await request.json()).get("lora_name")
        if name is None:
            return _error(400, "Bad Request", "1 validation error: Field required", param="body.lora_name")
        if name not in self.adapters:
            return _error(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        del self.adapters[name]
        return web.Response(body=f"Success: LoRA adapter '{name}' removed successfully.".encode())

    def die(self, request: web.Request) -> None:
        """Be gone at once; a process ends, a server within a test stops listening."""
        if self._exits:
            os._exit(1)
        self.dead = True
        self.died.set()
        self.adapters.clear()
        _drop(request)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        if traceparent := request.headers.get("traceparent"):
            self.traceparents.append(traceparent)
        try:
            fields = json.loads(await request.read())
        except ValueError:
            return _error(400, "Bad Request", "1 validation error: JSON decode error", param="body.9")
        if self.stalled_completions:
            await asyncio.Event().wait()
        model, limit = fields["model"], fields["max_tokens"]
        if model != self.base_name and model not in self.adapters:
            message = f"The model `{model}` does not exist. Valid aliases: {self.base_name}."
            return _error(404, "NotFoundError", message, param="model")
        if limit < 1:
            message = f"max_tokens must be at least 1, got {limit}."
            return _error(400, "BadRequestError", message, param="max_tokens")
        if fields.get("prompt") == []:
            return _error(400, "BadRequestError", "You must pass at least one prompt")
        try:
            asked = self._read_prompt(fields)
        except ValueError as error:
            return _error(400, "BadRequestError", str(error), param="prompt_embeds")
        if asked.length + limit > self._max_model_length:
            message = f"max_tokens={limit} cannot be greater than max_model_len={self._max_model_length}."
            return _error(400, "BadRequestError", message, param="max_tokens")
        if model in self.faults.dies_at_answer and fields.get("stream"):
            self.die(request)
        if model in self.faults.broken_weights:
            return _error(500, "InternalServerError", "Out of range float values are not JSON compliant")
        if fields.get("stream"):
            return await self._stream(request, fields, asked)
        if (held := self.holds.get(model)) is not None:
            await held.wait()
        return web.json_response(self._whole(fields, asked, await self._company(model)))

    async def _company(self, model: str) -> Sequence[str]:
        """The models that share a batch with `model`, itself included."""
        if self.faults.mixing_slots is None:
            return (model,)
        batch = self._batch
        batch.append(model)
        await asyncio.sleep(BATCH_SECONDS)
        if self._batch is batch:
            self._batch = []
        return batch

    def _read_prompt(self, fields: Mapping[str, object]) -> Asked:
        """Raises ValueError as vLLM refuses."""
        prompt = fields.get("prompt")
        if isinstance(prompt, list):
            return Asked(token_ids=prompt, virtual=b"", length=len(prompt))
        if self.faults.without_prompt_embeds:
            raise ValueError("You must set `--enable-prompt-embeds` to input `prompt_embeds`.")
        if fields.get("prompt_logprobs") is not None:
            raise ValueError("prompt_logprobs is not compatible with prompt embeds.")
        rows = _rows(str(fields["prompt_embeds"]))
        token_ids = [self._tokens[row] for row in rows if row in self._tokens]
        virtual = b"".join(row for row in rows if row not in self._tokens)
        return Asked(token_ids=token_ids, virtual=virtual, length=len(rows))

    def _whole(
        self, fields: Mapping[str, object], asked: Asked, company: Sequence[str]
    ) -> Mapping[str, object]:
        model = str(fields["model"])
        weights = self._weights(model, asked)
        slots = self.faults.mixing_slots
        if slots is not None and model == self.base_name and {*company} != {model}:
            weights = self._slots[slots - 1] if slots <= len(self._slots) else weights
        entries: list[object] | None = None
        if fields.get("prompt_logprobs") is not None:
            measured = logprobs(weights, asked.token_ids, self._noise)
            entries = [None] + [
                {str(token): {"logprob": value, "rank": 1, "decoded_token": f"t{token}"}}
                for token, value in zip(asked.token_ids[1:], measured, strict=True)
            ]
        nothing = dict.fromkeys(
            ("logprobs", "stop_reason", "token_ids", "prompt_token_ids", "routed_experts")
        )
        choice = {
            "index": 0,
            "text": WORDS[0],
            "finish_reason": "length",
            "prompt_logprobs": entries,
            **nothing,
        }
        if (wanted := fields.get("logprob_token_ids")) is not None:
            assert isinstance(wanted, list)
            values = {
                f"token_id:{token}": logprob(weights, len(asked.token_ids), token, self._noise)
                for token in wanted
            }
            choice["logprobs"] = {
                "text_offset": [0],
                "token_logprobs": [-0.5],
                "tokens": ["token_id:0"],
                "top_logprobs": [{"token_id:0": -0.5, **values}],
            }
        extra = dict.fromkeys(("service_tier", "kv_transfer_params", "ec_transfer_params", "metrics"))
        details = dict.fromkeys(("prompt_tokens_details", "completion_tokens_details"))
        return {
            **self._head(model),
            "choices": [choice],
            "usage": {**_usage(asked.length, 1), **details},
            **extra,
        } | {"system_fingerprint": "vllm-double"}

    def _weights(self, model: str, asked: Asked) -> bytes | None:
        if asked.virtual and not self.faults.deaf_to_virtual_tokens:
            return asked.virtual
        if model == self.base_name or model in self.faults.as_base:
            return self._own_weights
        return self.adapters[self.faults.swapped.get(model, model)].weights

    def _head(self, model: str) -> Mapping[str, object]:
        return {"id": "cmpl-0", "object": "text_completion", "created": int(time.time()), "model": model}

    async def _stream(
        self, request: web.Request, fields: Mapping[str, object], asked: Asked
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        self.streams += 1
        sent, is_whole = 0, False
        try:
            async for event in self._events(fields, asked):
                payload = f"data: {event}\n\n".encode()
                cut = self.faults.cut_stream_at
                if cut is not None and sent + len(payload) > cut:
                    await response.write(payload[: cut - sent])
                    _drop(request)
                    break
                await response.write(payload)
                sent += len(payload)
            else:
                is_whole = True
        finally:
            self.streams -= 1
            self.broken_off[str(fields["model"])] += not is_whole
            self.stream_ended.set()
        return response

    async def _events(self, fields: Mapping[str, object], asked: Asked) -> AsyncIterator[str]:
        limit, model, most = fields["max_tokens"], str(fields["model"]), fields.get("logprobs")
        assert isinstance(limit, int)
        if isinstance(most, int) and most > MOST_LOGPROBS:
            message = f"Requested sample logprobs of {most}, which is greater than max allowed"
            yield json.dumps({"error": _error_body(400, "BadRequestError", message, "logprobs")})
            yield "[DONE]"
            return
        head = self._head(model)
        words = WORDS if self.respond is None else self.respond(fields)
        wanted = self._answer_tokens if self.respond is None else len(words)
        count = min(wanted, limit)
        for token in range(count):
            if token == self.faults.error_event_at:
                yield json.dumps(
                    {"error": _error_body(500, "InternalServerError", "Internal server error", None)}
                )
                yield "[DONE]"
                return
            last = token == count - 1
            reason = ("length" if limit < wanted else self.faults.finish_reason) if last else None
            choice = {"index": 0, "text": words[token % len(words)], "finish_reason": reason}
            nothing = dict.fromkeys(("stop_reason", "prompt_token_ids", "token_ids"))
            nothing["logprobs"] = _told(words[token % len(words)], token, most)
            usage = _usage(asked.length, token + 1)
            yield json.dumps({**head, "choices": [{**choice, **nothing}], "usage": usage})
            if self._token_seconds:
                await asyncio.sleep(self._token_seconds)
            for held in (self.hold, self.holds.get(model)):  # another thread may let go meanwhile
                if held is not None:
                    await held.wait()
        usage = _usage(asked.length, count)
        yield json.dumps({**head, "choices": [], "usage": usage, "system_fingerprint": "vllm-double"})
        yield "[DONE]"


def _told(word: str, token: int, most: object) -> Mapping[str, object] | None:
    """The log-probabilities of a streamed token: the drawn one's, here the second most probable, and those of
    the `most` most probable ones besides it."""
    if most is None:
        return None
    assert isinstance(most, int)
    top = {f"t{place}": -0.25 * (place + 1) for place in range(most) if place != 1} | {word: -0.5}
    return {
        "text_offset": [token],
        "token_logprobs": [-0.5],
        "tokens": [word],
        "top_logprobs": [top],
    }


def _rows(encoded: str) -> list[bytes]:
    """The rows of an encoded tensor. Raises ValueError as vLLM refuses."""
    try:
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(encoded, validate=True))) as archive:
            _, _, (tokens, _), *_ = _Description(archive.open("archive/data.pkl")).load()
            numbers = archive.read("archive/data/0")
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    except Exception as error:
        raise ValueError("`prompt_embeds` could not be deserialized as a torch tensor") from error
    width = len(numbers) // tokens
    return [numbers[begin : begin + width] for begin in range(0, len(numbers), width)]


class _Description(pickle.Unpickler):
    """What `torch.save` tells of a tensor: storage, offset, size, stride and more. torch itself takes seconds
    to import."""

    def find_class(self, _module: str, _name: str) -> Callable[..., object]:
        return lambda *arguments: arguments

    def persistent_load(self, pid: object) -> object:
        return pid


def _drop(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _usage(prompt_tokens: int, completion_tokens: int) -> Mapping[str, object]:
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "total_tokens": total, "completion_tokens": completion_tokens}


def _card(name: str, root: str, parent: str | None, extra: Mapping[str, object]) -> Mapping[str, object]:
    permission = {
        "id": "modelperm-0",
        "object": "model_permission",
        "created": 0,
        "organization": "*",
        "group": None,
    }
    flags = ("create_engine", "sampling", "logprobs", "search_indices", "view", "fine_tuning")
    allowed = {"sampling", "logprobs", "view"}
    permission |= {f"allow_{flag}": flag in allowed for flag in flags} | {"is_blocking": False}
    head = {"id": name, "object": "model", "created": 0, "owned_by": "vllm", "root": root, "parent": parent}
    return {**head, **extra, "permission": [permission]}


def _error_body(code: int, kind: str, message: str, param: str | None) -> Mapping[str, object]:
    return {"message": message, "type": kind, "param": param, "code": code}


def _error(code: int, kind: str, message: str, *, param: str | None = None) -> web.Response:
    return web.json_response({"error": _error_body(code, kind, message, param)}, status=code)


async def _serve(arguments: argparse.Namespace) -> None:
    double = EngineDouble(
        base_name=arguments.served_model_name,
        base_path=arguments.model,
        api_key=os.environ.get("VLLM_API_KEY"),
        exits=True,
    )
    double.faults = Faults(**json.loads(arguments.faults))
    await double.start(arguments.port)
    sys.stdout.write(f"{double.port}\n")
    sys.stdout.flush()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()


def main() -> None:
    """Run as a process; ends on SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="/models/base")
    parser.add_argument("--served-model-name", default="base")
    parser.add_argument("--faults", default="{}", help="fields of Faults as JSON")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
