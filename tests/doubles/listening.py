"""How a server on asyncio begins to listen where it can come back, and stops without losing a connection."""

import asyncio
import errno
import random
import socket

_PORTS = range(20_000, 32_000)
"""Below those that Linux gives out, which somebody else may have got while the server is away."""


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; on some free port where `port` is 0."""
    if port:
        return socket.create_server((host, port))
    choice = random.SystemRandom()
    while True:
        try:
            return socket.create_server((host, choice.choice(_PORTS)))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


async def accept_no_more(listening: socket.socket) -> None:
    """Call it before the server of `listening` is closed.

    A connection that is accepted while its server closes is never closed by asyncio (3.11), and its loss is
    told wherever the garbage collector finds it. So first accept no more, then let those just accepted become
    connections that the server knows.
    """
    asyncio.get_running_loop().remove_reader(listening)
    for _ in range(5):
        await asyncio.sleep(0)
