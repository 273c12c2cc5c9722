"""Arms in turn: A B, B A, A B, ... so that what else the machine does falls on all of them alike."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from statistics import median
from typing import TypeVar

Result = TypeVar("Result")


async def interleaved(
    arms: Mapping[str, Callable[[], Awaitable[Result]]], rounds: int
) -> dict[str, list[Result]]:
    """Run every arm once a round, in an order that turns round each time; the results of each arm."""
    results: dict[str, list[Result]] = {name: [] for name in arms}
    for number in range(rounds):
        for name in list(arms)[:: 1 if number % 2 == 0 else -1]:
            results[name].append(await arms[name]())
    return results


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return median(a / b for a, b in zip(numerators, denominators, strict=True))
