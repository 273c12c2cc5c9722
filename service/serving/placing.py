"""Where a request stands among all requests of an adapter, for aliases that several versions share.

A digest of a key, so that it needs no memory and every service says the same.
"""

import hashlib

from service.serving.turn import ChatTurn


def place_of(turn: ChatTurn) -> float:
    """0 to 1, 1 excluded: the same for the same sticky key, else for the same beginning of a conversation,
    which is all messages up to the user's first, else for the same text."""
    key = turn.sticky_key
    if not key:
        key = turn.text if turn.text is not None else _beginning(turn)
    kind = "key" if turn.sticky_key else "conversation"
    digest = hashlib.sha256(f"{kind} of {turn.model.partition('@')[0]}\0{key}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


def _beginning(turn: ChatTurn) -> str:
    users = (index for index, message in enumerate(turn.messages) if message.role == "user")
    first = next(users, len(turn.messages))
    return "\0".join(message.content for message in turn.messages[: first + 1])
