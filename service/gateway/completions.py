"""Answers in the shapes of OpenAI's completions, of chats and of texts.

Pure: deltas in, JSON out, one `dumps` a chunk.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate

from service.engine.wire import TokenLogprob
from service.serving.turn import ChatDelta

DONE = b"data: [DONE]\n\n"


class Envelope(ABC):
    """What all JSON of the answers to one request has in common."""

    prefix: str
    """Of its id."""
    kind: str
    """What `object` says of the whole."""
    chunk_kind: str
    """And of a piece."""

    def __init__(self, *, answer_id: str, created: int, model: str) -> None:
        """`created` in seconds since the epoch."""
        self._common = {"id": f"{self.prefix}-{answer_id}", "created": created, "model": model}
        event = json.dumps({**self._common, "object": self.chunk_kind}, separators=(",", ":"))
        self._head = f"data: {event.removesuffix('}')}"
        self._written: dict[int, int] = {}

    def chunk(self, index: int, delta: ChatDelta, *, include_usage: bool) -> bytes:
        """One event of a streamed answer."""
        before = self._written.get(index)
        self._written[index] = (before or 0) + len(delta.text)
        piece = self._piece(delta, before)
        reason = "null" if delta.finish_reason is None else f'"{delta.finish_reason}"'
        usage = ',"usage":null' if include_usage else ""
        return (
            f'{self._head},"choices":[{{"index":{index},{piece},"finish_reason":{reason}}}]{usage}}}\n\n'
        ).encode()

    def usage_chunk(self, last: Sequence[ChatDelta]) -> bytes:
        """The event with the counts, after the last chunk of every answer."""
        return f'{self._head},"choices":[],"usage":{json.dumps(_usage(last))}}}\n\n'.encode()

    def whole(self, answers: Sequence[Sequence[ChatDelta]]) -> str:
        """Answers in one piece, each from all its deltas."""
        choices = [
            {"index": index, **self._choice(deltas), "finish_reason": deltas[-1].finish_reason}
            for index, deltas in enumerate(answers)
        ]
        usage = _usage([deltas[-1] for deltas in answers])
        return json.dumps({**self._common, "object": self.kind, "choices": choices, "usage": usage})

    @abstractmethod
    def _piece(self, delta: ChatDelta, before: int | None) -> str:
        """Fields of a piece; `before` it came so many characters, None where it is the first."""

    @abstractmethod
    def _choice(self, deltas: Sequence[ChatDelta]) -> dict[str, object]:
        """Fields of a whole answer."""


class ChatEnvelope(Envelope):
    """Of /v1/chat/completions."""

    prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def _piece(self, delta: ChatDelta, before: int | None) -> str:
        role = '"role":"assistant",' if before is None else ""
        logprobs = json.dumps(_logprobs(delta.logprobs)) if delta.logprobs else "null"
        return f'"delta":{{{role}"content":{json.dumps(delta.text)}}},"logprobs":{logprobs}'

    def _choice(self, deltas: Sequence[ChatDelta]) -> dict[str, object]:
        told = [each for delta in deltas for each in delta.logprobs]
        message = {
            "role": "assistant",
            "content": "".join(delta.text for delta in deltas),
            "refusal": None,
        }
        return {"message": message, "logprobs": _logprobs(told) if told else None}


class TextEnvelope(Envelope):
    """Of /v1/completions."""

    prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def _piece(self, delta: ChatDelta, before: int | None) -> str:
        logprobs = json.dumps(_text_logprobs(delta.logprobs, before or 0)) if delta.logprobs else "null"
        return f'"text":{json.dumps(delta.text)},"logprobs":{logprobs}'

    def _choice(self, deltas: Sequence[ChatDelta]) -> dict[str, object]:
        told = [each for delta in deltas for each in delta.logprobs]
        return {
            "text": "".join(delta.text for delta in deltas),
            "logprobs": _text_logprobs(told, 0) if told else None,
        }


def _text_logprobs(told: Sequence[TokenLogprob], begin: int) -> dict[str, object]:
    """`begin`: characters of the answer before them."""
    offsets = accumulate((len(each.token) for each in told), initial=begin)
    return {
        "tokens": [each.token for each in told],
        "token_logprobs": [each.logprob for each in told],
        "top_logprobs": [dict(each.top) for each in told],
        "text_offset": list(offsets)[:-1],
    }


def _logprobs(told: Sequence[TokenLogprob]) -> dict[str, object]:
    """Without the tokens' bytes: of a token that is a part of a character the engine tells no bytes."""
    return {
        "content": [
            {
                **_token(each.token, each.logprob),
                "top_logprobs": [_token(token, logprob) for token, logprob in each.top],
            }
            for each in told
        ],
        "refusal": None,
    }


def _token(token: str, logprob: float) -> dict[str, object]:
    return {"token": token, "logprob": logprob, "bytes": None}


def _usage(last: Sequence[ChatDelta]) -> dict[str, int]:
    """The prompt counts once, as it does in the OpenAI API."""
    prompt, completion = last[0].prompt_tokens, sum(delta.completion_tokens for delta in last)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
