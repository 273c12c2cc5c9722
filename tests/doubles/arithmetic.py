"""What the doubles compute in the place of a model, so that the trainer's canary is what the engine serves.

Log-probabilities are a fixed function of the tokens and of the bytes of the adapter's weights file. Standard
library only.
"""

import hashlib
from collections.abc import Sequence


def logprobs(weights: bytes | None, token_ids: Sequence[int], noise: float = 0.0) -> list[float]:
    """What a model with these adapter weights (None: the base) says of each token but the first, in nats."""
    return [logprob(weights, position, token, noise) for position, token in enumerate(token_ids)][1:]


def logprob(weights: bytes | None, position: int, token: int, noise: float = 0.0) -> float:
    """What it says of one token, in nats; `position` counts the tokens before it."""
    known = -0.5 - 6 * _fraction(b"base", position, token)
    return known - _move(weights, position, token) + noise * (-1) ** position


def _move(weights: bytes | None, position: int, token: int) -> float:
    return 2 * _fraction(weights, position, token) if weights else 0.0


def _fraction(seed: bytes, position: int, token: int) -> float:
    digest = hashlib.sha256(seed + b"%d/%d" % (position, token)).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
