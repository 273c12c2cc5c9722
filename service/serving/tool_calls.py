"""Answers that may call tools: the calls taken out of what the engine writes, as it comes.

How a model family writes them is the renderer's knowledge.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from service.errors import FieldViolation, InvalidRequest
from service.serving.turn import ChatDelta, ChatTurn, FinishReason
from trainer.rendering import CallReader


async def with_calls(
    answer: AsyncGenerator[ChatDelta, None], reader: CallReader
) -> AsyncGenerator[ChatDelta, None]:
    """The same answer, with its calls apart from its text. An answer that ends by itself and called something
    ends with TOOL_CALLS. Raises as `answer`."""
    has_begun = has_called = False
    async with aclosing(answer):
        async for delta in answer:
            text, calls = reader.feed(delta.text)
            reason = delta.finish_reason
            if reason is not None:
                rest, last = reader.finish(is_whole=reason is FinishReason.STOP)
                text, calls = text + rest, [*calls, *last]
            has_called = has_called or bool(calls)
            if reason is FinishReason.STOP and has_called:
                reason = FinishReason.TOOL_CALLS
            if text or calls or reason is not None or delta.logprobs or not has_begun:
                has_begun = True
                yield replace(delta, text=text, calls=tuple(calls), finish_reason=reason)


def refuse_tools(turn: ChatTurn, refused: str | None) -> None:
    """`refused` is why nothing in a turn may have to do with tools, None where it may. Raises
    InvalidRequest, naming each place in the words of the OpenAI API."""
    if refused is None:
        return
    fields = ["tools"] if turn.tools else []
    for index, message in enumerate(turn.messages):
        if message.calls:
            fields.append(f"messages[{index}].tool_calls")
        elif message.role == "tool":
            fields.append(f"messages[{index}].role")
    if fields:
        what = f"is not supported: {refused}"
        raise InvalidRequest([FieldViolation(field=field, description=what) for field in fields])


def tool_characters(turn: ChatTurn) -> int:
    """About how long what a turn says of tools is in a prompt."""
    offered = sum(len(json.dumps(tool)) for tool in turn.tools)
    return offered + sum(
        len(call.name) + len(json.dumps(call.arguments)) for each in turn.messages for call in each.calls
    )
