"""Streams that are read at once, and ahead of whoever takes their pieces, whatever these are."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

PieceT = TypeVar("PieceT")


async def read_ahead(
    streams: Sequence[AsyncGenerator[PieceT, None]], most: int
) -> AsyncGenerator[tuple[int, PieceT], None]:
    """The pieces of all streams with their stream's index, as they come. At most `most` of them wait here;
    beyond that the streams wait too. Raises what one of them raises, and closes all; close it to do so
    earlier."""
    waiting: asyncio.Queue[tuple[int, PieceT] | Exception | None] = asyncio.Queue(most)

    async def read(index: int, stream: AsyncGenerator[PieceT, None]) -> None:
        try:
            async with aclosing(stream):
                async for piece in stream:
                    await waiting.put((index, piece))
            await waiting.put(None)
        except Exception as error:
            await waiting.put(error)

    tasks = [asyncio.create_task(read(index, stream)) for index, stream in enumerate(streams)]
    try:
        ended = 0
        while ended < len(tasks):
            taken = await waiting.get()
            if isinstance(taken, Exception):
                raise taken
            if taken is None:
                ended += 1
            else:
                yield taken
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
