"""The JSON of vLLM 0.32's OpenAI-compatible server, read strictly and written sparingly.

Everything that knows a field name of vLLM stands here. No network: `service.engine.client` moves the bytes.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from service.engine.embeddings import PromptEmbeddings
from service.errors import Unavailable
from service.jsonshape import Json, array, count, mapping, number, text

Prompt = Sequence[int] | PromptEmbeddings
"""Token ids, or embeddings in their place."""

RETRY_SECONDS = 2.0
"""After this another try may find the engine well; a restart takes longer, and asking again is cheap."""


_SLOTS = re.compile(rb'^vllm:lora_requests_info\{[^}\n]*\bmax_lora="([0-9]{1,4})"', re.MULTILINE)
_NO_PROBABILITY = -9999.0
"""What vLLM writes for the logarithm of zero."""


@dataclass(frozen=True, kw_only=True)
class EngineModel:
    """Something the engine says it serves."""

    name: str
    path: str | None
    """Directory it was loaded from."""
    base_model: str | None
    """Name of the base model; None for a base model itself."""
    max_model_length: int | None
    """Tokens of prompt and answer; None for adapters."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn. Ranges stand at ChatRequest in the proto."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    """None means random."""
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    choices: tuple[str, ...] = ()
    """The only answers that may be given; empty means any."""
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logprobs: int | None = None
    """How many of the most probable tokens are told at each place, besides the one that was drawn; None tells
    nothing."""
    json_schema: Json | None = None
    """What the answer has to fit; {} is any JSON object. None: any text."""
    shows_special_tokens: bool = False
    """Whether special tokens within the answer are a part of its text, but for the one that ends it: some
    models write calls of tools with them."""


@dataclass(frozen=True, kw_only=True)
class TokenLogprob:
    """A token of an answer and how probable it was, in nats."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...]
    """The most probable ones at this place, most probable first."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A piece of an answer: everything that arrived together, so that a slow reader gets fewer, larger
    pieces."""

    text: str
    token_count: int
    """Tokens of the answer so far, this piece included."""
    finish_reason: str | None
    """stop or length in the last chunk, else None."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of the piece's tokens, where they were asked for."""


class EngineRefused(Exception):  # noqa: N818 - named as its kin in service.errors
    """The engine answered, and would not do it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status
        self.message = message


class EngineLost(Unavailable):
    """The engine had the request when it went away, and may have died of it."""

    def __init__(self, message: str) -> None:
        super().__init__("ENGINE_UNAVAILABLE", message, retry_seconds=RETRY_SECONDS)


def unavailable(what: str) -> Unavailable:
    """No whole answer came; what happened at the engine is unknown."""
    return Unavailable("ENGINE_UNAVAILABLE", what, retry_seconds=RETRY_SECONDS)


def read_object(content: bytes | bytearray) -> Json:
    """A JSON object. Raises Unavailable on anything else."""
    try:
        return mapping(json.loads(content))
    except (ValueError, TypeError, RecursionError) as error:
        raise unavailable("the engine's answer is not a JSON object") from error


def read_models(body: Json) -> tuple[EngineModel, ...]:
    """What `GET /v1/models` says. Raises Unavailable on any other shape: an unreadable list is not an empty
    one."""
    try:
        return tuple(_engine_model(card) for card in array(body["data"]))
    except (KeyError, TypeError) as error:
        raise unavailable("the engine's list of models is not one") from error


def read_prompt_logprobs(body: Json, token_ids: Sequence[int]) -> tuple[float, ...]:
    """`len(token_ids) - 1` log-probabilities, not necessarily finite. Raises EngineRefused on any other
    shape."""
    try:
        (choice,) = array(body["choices"])
        _, *entries = array(mapping(choice)["prompt_logprobs"])
        return tuple(
            number(mapping(mapping(entry)[str(token)])["logprob"])
            for token, entry in zip(token_ids[1:], entries, strict=True)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EngineRefused(200, "the log-probabilities have an unknown shape") from error


def read_next_logprob(body: Json, token: int) -> float:
    """The log-probability of `token` as the first of the answer, not necessarily finite. Raises
    EngineRefused on any other shape."""
    try:
        (choice,) = array(body["choices"])
        (first,) = array(mapping(mapping(choice)["logprobs"])["top_logprobs"])
        found = number(mapping(first)[f"token_id:{token}"])
    except (KeyError, TypeError, ValueError) as error:
        raise EngineRefused(200, "the log-probability has an unknown shape") from error
    return found if found > _NO_PROBABILITY else -math.inf


def read_slots(figures: bytes | bytearray) -> int | None:
    """Different adapters in one batch, as vLLM's own figures tell; None where they do not."""
    found = _SLOTS.search(figures)
    return None if found is None else int(found[1])


def read_error(content: bytes) -> str:
    """The sentence of an error answer, or its first bytes."""
    try:
        return text(mapping(mapping(json.loads(content))["error"])["message"])[:2000]
    except (ValueError, KeyError, TypeError, RecursionError):
        return content[:200].decode(errors="replace")


def next_logprob_request(model: str, prompt: Prompt, token: int) -> Json:
    """Body of a completion of one token that says how probable `token` was there."""
    return {
        "model": model,
        **_prompt_fields(prompt),
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": 1,
        "logprob_token_ids": [token],
        "return_tokens_as_token_ids": True,
    }


def completion_request(model: str, prompt: Prompt, sampling: Sampling) -> Json:
    """Body of a streamed completion that counts its tokens in every event."""
    request: dict[str, object] = {
        "model": model,
        **_prompt_fields(prompt),
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    if sampling.seed is not None:
        request["seed"] = sampling.seed
    if sampling.stop:
        request["stop"] = list(sampling.stop)
    if sampling.stop_token_ids:
        request["stop_token_ids"] = list(sampling.stop_token_ids)
    if sampling.choices:
        request["structured_outputs"] = {"choice": list(sampling.choices)}
    elif sampling.json_schema is not None:
        schema = sampling.json_schema
        request["structured_outputs"] = {"json": schema} if schema else {"json_object": True}
    if sampling.frequency_penalty:
        request["frequency_penalty"] = sampling.frequency_penalty
    if sampling.presence_penalty:
        request["presence_penalty"] = sampling.presence_penalty
    if sampling.shows_special_tokens:
        request["skip_special_tokens"] = False
    if sampling.logprobs is not None:
        request["logprobs"] = sampling.logprobs
    return request


def _prompt_fields(prompt: Prompt) -> Json:
    if isinstance(prompt, PromptEmbeddings):
        return {"prompt_embeds": prompt.encoded()}
    return {"prompt": list(prompt)}


class Answer:
    """Folds the events of one streamed completion into chunks."""

    def __init__(self, logprobs: int | None = None) -> None:
        """`logprobs` is how many were asked for at each place."""
        self.done = False
        """[DONE] came after a finish_reason."""
        self._most = logprobs
        self._tokens = 0
        self._finished = False

    def take(self, payloads: list[bytes]) -> Chunk | None:
        """Fold what arrived together into at most one chunk. Raises Unavailable on an error within the
        stream."""
        texts: list[str] = []
        told: list[TokenLogprob] = []
        tokens_before, finish_reason = self._tokens, None
        for payload in payloads:
            if payload == b"[DONE]":
                if not self._finished:
                    raise unavailable("the engine's answer ended without a reason")
                self.done = True
                break
            event = read_object(payload)
            if "error" in event:
                raise unavailable("the engine failed while answering")
            choices = array(event["choices"])
            if not choices:
                continue
            if self._finished:
                raise unavailable("the engine's answer went on after its end")
            choice = mapping(choices[0])
            texts.append(text(choice["text"]))
            if self._most is not None and choice.get("logprobs") is not None:
                told.extend(_token_logprobs(mapping(choice["logprobs"]), self._most))
            self._tokens = count(mapping(event["usage"])["completion_tokens"])
            if choice.get("finish_reason") is not None:
                finish_reason = _finish_reason(choice["finish_reason"])
                self._finished = True
        if self._tokens == tokens_before and finish_reason is None and not any(texts):
            return None
        return Chunk(
            text="".join(texts), token_count=self._tokens, finish_reason=finish_reason, logprobs=tuple(told)
        )


def _engine_model(card: object) -> EngineModel:
    fields = mapping(card)
    length = fields.get("max_model_len")
    root, parent = fields.get("root"), fields.get("parent")
    return EngineModel(
        name=text(fields["id"]),
        path=None if root is None else text(root),
        base_model=None if parent is None else text(parent),
        max_model_length=None if length is None else count(length),
    )


def _token_logprobs(fields: Json, most: int) -> list[TokenLogprob]:
    """Of one event's tokens. vLLM adds the drawn token to the most probable ones; that is one too many."""
    places = zip(
        array(fields["tokens"]),
        array(fields["token_logprobs"]),
        array(fields["top_logprobs"]),
        strict=True,
    )
    found = []
    for token, drawn, beside in places:
        top = sorted(
            ((name, number(value)) for name, value in mapping(beside).items()), key=lambda each: -each[1]
        )
        found.append(TokenLogprob(token=text(token), logprob=number(drawn), top=tuple(top[:most])))
    return found


def _finish_reason(value: object) -> str:
    if value not in {"stop", "length"}:
        raise unavailable(f"the engine ended the answer with {value!r}")
    return str(value)
