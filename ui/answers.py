"""One side's answer: from the service's deltas to what a chat shows, at most twenty updates a second.

Knows nothing of pages or events: in goes a conversation, out come conversations that grow.
"""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypedDict

from hotlora.aio import AsyncClient
from hotlora.v1.chat_service_pb2 import FINISH_REASON_LENGTH, ChatResponse
from hotlora.v1.resources_pb2 import Message

# Every update sends a difference to the browser: one per token costs four times the bytes of one each 50 ms.
MIN_UPDATE_SECONDS = 0.05


class TextPart(TypedDict):
    """A piece of content, as the chat component hands it back."""

    type: str
    text: str


class Turn(TypedDict):
    """A turn, as the chat component takes it and hands it back."""

    role: str
    content: str | list[TextPart]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are drawn; both sides of a comparison share it."""

    system_prompt: str
    temperature: float
    top_p: float
    max_tokens: int
    seed: int | None


def text_of(turn: Turn) -> str:
    """The plain text of a turn."""
    content = turn["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def up_to_question(history: Sequence[Turn]) -> list[Turn]:
    """The conversation up to and including its last question; empty when there is none."""
    questions = [index for index, turn in enumerate(history) if turn["role"] == "user"]
    return list(history[: questions[-1] + 1]) if questions else []


async def answer(
    client: AsyncClient, model: str, history: Sequence[Turn], sampling: Sampling
) -> AsyncGenerator[tuple[list[Turn], str]]:
    """Yield the conversation with the growing answer, and the line of figures below it.

    Raises hotlora.errors.HotloraError when the service refuses or the answer breaks off.
    """
    asked = list(history)
    text = ""
    last_update_time = 0.0
    deltas = client.chat(
        model=model,
        messages=_messages(asked, sampling.system_prompt),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        seed=sampling.seed,
    )
    # Closed at once when the person stops or leaves, so that the engine is freed then.
    async with aclosing(deltas):
        async for delta in deltas:
            text += delta.delta
            now = time.monotonic()
            if delta.finish_reason or now - last_update_time >= MIN_UPDATE_SECONDS:
                last_update_time = now
                yield [*asked, Turn(role="assistant", content=text)], figures(delta)


def figures(delta: ChatResponse) -> str:
    """One line: who answers, time to first token, tokens per second, tokens."""
    parts = [f"`{delta.model}`", f"first token {delta.time_to_first_token_seconds:.2f} s"]
    decoding_seconds = delta.elapsed_seconds - delta.time_to_first_token_seconds
    if delta.completion_tokens > 1 and decoding_seconds > 0:
        parts.append(f"{(delta.completion_tokens - 1) / decoding_seconds:.1f} tok/s")
    parts.append(f"{delta.completion_tokens} tokens")
    if delta.finish_reason == FINISH_REASON_LENGTH:
        parts.append("cut at max tokens")
    return " · ".join(parts)


def _messages(history: Sequence[Turn], system_prompt: str) -> list[Message]:
    system = [Message(role="system", content=system_prompt)] if system_prompt.strip() else []
    return [*system, *(Message(role=turn["role"], content=text_of(turn)) for turn in history)]
