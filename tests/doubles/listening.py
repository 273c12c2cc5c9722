"""How a server on asyncio stops listening without losing a connection."""

import asyncio
import socket


async def accept_no_more(listening: socket.socket) -> None:
    """Call it before the server of `listening` is closed.

    A connection that is accepted while its server closes is never closed by asyncio (3.11), and its loss is
    told wherever the garbage collector finds it. So first accept no more, then let those just accepted become
    connections that the server knows.
    """
    asyncio.get_running_loop().remove_reader(listening)
    for _ in range(5):
        await asyncio.sleep(0)
