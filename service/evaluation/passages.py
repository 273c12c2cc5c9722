"""Which passages of texts training has seen, wherever it has cut the texts.

A continued training may cut the same texts at other places than the one before, and set others aside, so that
whole pieces cannot be compared. Pure; knows tokens only.
"""

from collections.abc import Iterable, Sequence

_TOKENS = 32
"""Of a passage. Texts that share fewer have phrases in common, not passages; more would miss short texts."""


class Passages:
    """Of the pieces that were trained on."""

    def __init__(self, pieces: Iterable[Sequence[int]]) -> None:
        self._trained = {
            hash(tuple(piece[begin : begin + _TOKENS])) for piece in pieces for begin in _whole(len(piece))
        }

    def mostly_in(self, piece: Sequence[int]) -> bool:
        """Whether half of a piece or more was trained on, as far as passages tell: those that begin or end
        within one count as strange."""
        found = sum(
            hash(tuple(piece[begin : begin + _TOKENS])) in self._trained
            for begin in range(max(1, len(piece) - _TOKENS + 1))
        )
        return found > 0 and 2 * _TOKENS * found >= len(piece) - 2 * _TOKENS


def _whole(tokens: int) -> range:
    """Where passages begin that lie side by side; a text shorter than one is one."""
    return range(0, max(1, tokens - _TOKENS + 1), _TOKENS)
