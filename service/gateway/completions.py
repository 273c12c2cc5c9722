"""Answers in the shapes of OpenAI's completions, of chats and of texts.

Pure: deltas in, JSON out, one `dumps` a chunk.
"""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from service.engine.wire import TokenLogprob
from service.serving.turn import ChatDelta
from trainer.rendering import ReadCall

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
        piece = self._piece(index, delta, before)
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
            {"index": index, **self._choice(index, deltas), "finish_reason": deltas[-1].finish_reason}
            for index, deltas in enumerate(answers)
        ]
        usage = _usage([deltas[-1] for deltas in answers])
        return json.dumps({**self._common, "object": self.kind, "choices": choices, "usage": usage})

    @abstractmethod
    def _piece(self, index: int, delta: ChatDelta, before: int | None) -> str:
        """Fields of a piece of the answer `index`; `before` it came so many characters, None where it is the
        first."""

    @abstractmethod
    def _choice(self, index: int, deltas: Sequence[ChatDelta]) -> dict[str, object]:
        """Fields of a whole answer."""


class ChatEnvelope(Envelope):
    """Of /v1/chat/completions."""

    prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, *, answer_id: str, created: int, model: str) -> None:
        super().__init__(answer_id=answer_id, created=created, model=model)
        self._answer_id = answer_id
        self._called: Counter[int] = Counter()

    def _piece(self, index: int, delta: ChatDelta, before: int | None) -> str:
        role = '"role":"assistant",' if before is None else ""
        logprobs = json.dumps(_logprobs(delta.logprobs)) if delta.logprobs else "null"
        calls = f',"tool_calls":{json.dumps(self._numbered(index, delta.calls))}' if delta.calls else ""
        return f'"delta":{{{role}"content":{json.dumps(delta.text)}{calls}}},"logprobs":{logprobs}'

    def _choice(self, index: int, deltas: Sequence[ChatDelta]) -> dict[str, object]:
        told = [each for delta in deltas for each in delta.logprobs]
        content = "".join(delta.text for delta in deltas)
        message: dict[str, object] = {"role": "assistant", "content": content, "refusal": None}
        called = [call for delta in deltas for call in delta.calls]
        if called:
            calls = [self._call(index, number, call) for number, call in enumerate(called)]
            message |= {"content": content or None, "tool_calls": calls}
        return {"message": message, "logprobs": _logprobs(told) if told else None}

    def _numbered(self, index: int, calls: Sequence[ReadCall]) -> list[dict[str, object]]:
        """The next calls of the answer `index`. Each is in one piece: it is known when it is whole."""
        first = self._called[index]
        self._called[index] += len(calls)
        return [
            {"index": number, **self._call(index, number, call)} for number, call in enumerate(calls, first)
        ]

    def _call(self, index: int, number: int, call: ReadCall) -> dict[str, object]:
        return {
            "id": f"call_{self._answer_id}_{index}_{number}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }


class TextEnvelope(Envelope):
    """Of /v1/completions."""

    prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def _piece(self, index: int, delta: ChatDelta, before: int | None) -> str:
        logprobs = json.dumps(_text_logprobs(delta.logprobs, before or 0)) if delta.logprobs else "null"
        return f'"text":{json.dumps(delta.text)},"logprobs":{logprobs}'

    def _choice(self, index: int, deltas: Sequence[ChatDelta]) -> dict[str, object]:
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
