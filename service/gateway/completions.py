"""Answers in the shapes of OpenAI's chat completions. Pure: deltas in, JSON out, one `dumps` a chunk."""

import json

from service.serving.turn import ChatDelta

DONE = b"data: [DONE]\n\n"


class Envelope:
    """What all JSON of one answer has in common."""

    def __init__(self, *, answer_id: str, created: int, model: str) -> None:
        """`created` in seconds since the epoch."""
        self._common = {"id": answer_id, "created": created, "model": model}
        event = json.dumps({**self._common, "object": "chat.completion.chunk"}, separators=(",", ":"))
        self._head = f"data: {event.removesuffix('}')}"

    def chunk(self, delta: ChatDelta, *, is_first: bool, include_usage: bool) -> bytes:
        """One event of a streamed answer."""
        role = '"role":"assistant",' if is_first else ""
        reason = "null" if delta.finish_reason is None else f'"{delta.finish_reason}"'
        usage = ',"usage":null' if include_usage else ""
        return (
            f'{self._head},"choices":[{{"index":0,"delta":{{{role}"content":'
            f'{json.dumps(delta.text)}}},"logprobs":null,"finish_reason":{reason}}}]{usage}}}\n\n'
        ).encode()

    def usage_chunk(self, last: ChatDelta) -> bytes:
        """The event with the counts, after the last chunk."""
        return f'{self._head},"choices":[],"usage":{json.dumps(_usage(last))}}}\n\n'.encode()

    def whole(self, content: str, last: ChatDelta) -> str:
        """The answer in one piece."""
        message = {"role": "assistant", "content": content, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": last.finish_reason}
        return json.dumps(
            {**self._common, "object": "chat.completion", "choices": [choice], "usage": _usage(last)}
        )


def _usage(last: ChatDelta) -> dict[str, int]:
    return {
        "prompt_tokens": last.prompt_tokens,
        "completion_tokens": last.completion_tokens,
        "total_tokens": last.prompt_tokens + last.completion_tokens,
    }
