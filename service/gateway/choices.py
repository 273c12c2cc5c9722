"""Several answers to one request, given at once by one version."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

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
        async with aclosing(_together(answers)) as pieces:
            async for piece in pieces:
                yield piece


async def _together(
    answers: Sequence[AsyncGenerator[ChatDelta, None]],
) -> AsyncGenerator[tuple[int, ChatDelta], None]:
    pieces: asyncio.Queue[tuple[int, ChatDelta] | BaseException | None] = asyncio.Queue(_WAITING_PIECES)

    async def read(index: int, answer: AsyncGenerator[ChatDelta, None]) -> None:
        try:
            async with aclosing(answer):
                async for delta in answer:
                    await pieces.put((index, delta))
            await pieces.put(None)
        except Exception as error:
            await pieces.put(error)

    tasks = [asyncio.create_task(read(index, answer)) for index, answer in enumerate(answers)]
    try:
        ended = 0
        while ended < len(tasks):
            piece = await pieces.get()
            if isinstance(piece, BaseException):
                raise piece
            if piece is None:
                ended += 1
            else:
                yield piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
