"""Several answers to one request, given at once by one version."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from service.ahead import read_ahead
from service.serving import Chat, ChatDelta, ChatTurn

_WAITING_PIECES = 16
"""Pieces that wait for a slow reader; beyond them the answers wait too."""


async def choices(chat: Chat, turn: ChatTurn, number: int) -> AsyncGenerator[tuple[int, ChatDelta], None]:
    """Pieces of `number` answers with the answer's index, as they come. Close it to free the engine.

    All begin at once, and come from one version: its alias may move meanwhile, and it may be retired.
    Raises as `Chat.stream`, Exhausted before anything is answered; where one answer fails, all do.
    """
    asked = await chat.prepare(turn)
    with chat.hold(number) as hold:
        answers = [chat.answer(asked.seeded(index), hold) for index in range(number)]
        if number == 1:
            async with aclosing(answers[0]) as answer:
                async for delta in answer:
                    yield 0, delta
            return
        async with aclosing(read_ahead(answers, _WAITING_PIECES)) as pieces:
            async for piece in pieces:
                yield piece
