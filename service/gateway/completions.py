"""Answers in the shapes of OpenAI's chat completions. Pure: deltas in, JSON out, one `dumps` a chunk."""

import json
from collections.abc import Sequence

from service.engine.wire import TokenLogprob
from service.serving.turn import ChatDelta

DONE = b"data: [DONE]\n\n"


class Envelope:
    """What all JSON of one answer has in common."""

    def __init__(self, *, answer_id: str, created: int, model: str) -> None:
        """`created` in seconds since the epoch."""
        self._common = {"id": answer_id, "created": created, "model": model}
        event = json.dumps({**self._common, "object": "chat.completion.chunk"}, separators=(",", ":"))
        self._head = f"data: {event.removesuffix('}')}"

    def chunk(self, index: int, delta: ChatDelta, *, is_first: bool, include_usage: bool) -> bytes:
        """One event of a streamed answer."""
        role = '"role":"assistant",' if is_first else ""
        reason = "null" if delta.finish_reason is None else f'"{delta.finish_reason}"'
        logprobs = json.dumps(_logprobs(delta.logprobs)) if delta.logprobs else "null"
        usage = ',"usage":null' if include_usage else ""
        return (
            f'{self._head},"choices":[{{"index":{index},"delta":{{{role}"content":'
            f'{json.dumps(delta.text)}}},"logprobs":{logprobs},"finish_reason":{reason}}}]{usage}}}\n\n'
        ).encode()

    def usage_chunk(self, last: Sequence[ChatDelta]) -> bytes:
        """The event with the counts, after the last chunk of every answer."""
        return f'{self._head},"choices":[],"usage":{json.dumps(_usage(last))}}}\n\n'.encode()

    def whole(self, answers: Sequence[Sequence[ChatDelta]]) -> str:
        """Answers in one piece, each from all its deltas."""
        chosen = [_choice(index, deltas) for index, deltas in enumerate(answers)]
        usage = _usage([deltas[-1] for deltas in answers])
        return json.dumps({**self._common, "object": "chat.completion", "choices": chosen, "usage": usage})


def _choice(index: int, deltas: Sequence[ChatDelta]) -> dict[str, object]:
    told = [each for delta in deltas for each in delta.logprobs]
    message = {
        "role": "assistant",
        "content": "".join(delta.text for delta in deltas),
        "refusal": None,
    }
    return {
        "index": index,
        "message": message,
        "logprobs": _logprobs(told) if told else None,
        "finish_reason": deltas[-1].finish_reason,
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
