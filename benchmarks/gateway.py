"""The gateway against the engine behind it, throughput and first token: `python -m benchmarks.gateway`.

Both ask the same vLLM the same kind of questions. Throughput is measured in turns, so that a ratio is what
the gateway costs; first tokens in pairs that are asked at the same moment and so meet the same batch: many
pairs at once, where the gateway prepares one request after the other, and a pair whenever one ends. Each is
measured once more with the engine in the gateway's place: what is found there, the machine's noise does.
"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from operator import truediv
from statistics import median, quantiles

import aiohttp

from benchmarks.load import Load, Measured, Target
from benchmarks.rounds import interleaved
from benchmarks.stack import attached_stack

ROUNDS = 3
CONCURRENCIES = (1, 8, 32, 64)
WAVES = 2
"""Requests of a burst for each that is answered at the same time: of a single wave, much of what is measured
is how it begins and ends."""
MAX_TOKENS = 32
LEAST_PAIRS = 16

Waits = dict[str, dict[str, float]]
"""How long one waits for first tokens: of each figure, its median and quartiles."""


async def main() -> None:
    """Measure and print."""
    figures = {}
    async with attached_stack() as stack, aiohttp.ClientSession() as session:
        load = Load(session, max_tokens=MAX_TOKENS)
        direct = Target(url=stack.engine_url, model=stack.base_model, api_key=stack.engine_api_key)
        gateway = Target(url=stack.gateway_url, model=stack.base_model)
        for concurrency in CONCURRENCIES:
            figures[f"concurrency {concurrency}"] = {
                **await _throughput(load, direct, gateway, concurrency),
                "time to first token": {
                    "gateway": await _first_tokens(load, direct, gateway, concurrency),
                    "noise: direct again": await _first_tokens(load, direct, direct, concurrency),
                },
            }
    print(json.dumps({"gateway against direct vLLM": figures}))


async def _throughput(load: Load, direct: Target, gateway: Target, concurrency: int) -> dict[str, object]:
    async def burst(target: Target) -> Measured:
        return await load.burst([target], concurrency=concurrency, requests=WAVES * concurrency)

    for target in (direct, gateway):
        await burst(target)
    arms = {
        "direct": lambda: burst(direct),
        "gateway": lambda: burst(gateway),
        "direct again": lambda: burst(direct),
    }
    results = await interleaved(arms, ROUNDS)
    speeds = {name: [one.tokens_per_second for one in measured] for name, measured in results.items()}

    def ratio(name: str) -> dict[str, float]:
        return _spread(map(truediv, speeds[name], speeds["direct"]))

    return {
        "direct tokens per second": median(speeds["direct"]),
        "throughput ratio": {"gateway": ratio("gateway"), "noise: direct again": ratio("direct again")},
    }


async def _first_tokens(load: Load, direct: Target, other: Target, concurrency: int) -> dict[str, Waits]:
    """How long one waits for the first token of `other`, against `direct`."""
    at_once = max(1, concurrency // 2)
    pairs = await load.pairs(
        (direct, other), concurrency=concurrency, pairs=at_once + max(LEAST_PAIRS, concurrency)
    )
    steady = {"in a steady load": waits(pairs[at_once:])}
    return steady if at_once == 1 else {**steady, "asked all at once": waits(pairs[:at_once])}


def waits(pairs: Sequence[tuple[float, float]]) -> Waits:
    """Of pairs of seconds, direct and other, how far the other is above: as a ratio, and in milliseconds."""
    return {
        "ratio": _spread(late / early for early, late in pairs),
        "milliseconds added": _spread(1000 * (late - early) for early, late in pairs),
        "direct milliseconds": {"median": 1000 * median(early for early, _ in pairs)},
    }


def _spread(values: Iterable[float]) -> dict[str, float]:
    lower, middle, upper = quantiles(values, n=4)
    return {"median": middle, "lower quartile": lower, "upper quartile": upper}


if __name__ == "__main__":
    asyncio.run(main())
