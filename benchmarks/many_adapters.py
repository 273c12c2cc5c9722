"""Two hundred adapters on one engine with memory for some of them: `python -m benchmarks.many_adapters`.

Asked in turn against one adapter asked alone, at the same load. Then as many adapters as the engine has slots
are asked without a pause, and one that is not among them: how long it waits where it goes to the engine
directly, which passes over it, and where it goes through the gateway, which has adapters take turns.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from statistics import median

import aiohttp

from benchmarks.drawn import register
from benchmarks.load import Load, Measured, Target
from benchmarks.rounds import interleaved, median_ratio
from benchmarks.stack import RunningStack, attached_stack

ADAPTERS = 200
MEMORY = 40
"""Adapters that the engine keeps: a fifth of them, so that each in turn is read again."""
SLOTS = 4
CONCURRENCY = 8
REQUESTS = 50
ROUNDS = 4
"""In which each is asked once."""
MAX_TOKENS = 8
CALLERS = 2
"""Of each hot adapter, so that it is never idle."""
LOOK_SECONDS = 0.2
LIMIT_SECONDS = 60.0
"""After this a request that has no token is told as having waited so long."""
PROOFS_SECONDS = 900.0


async def main() -> None:
    """Measure and print."""
    settings = {"engine_max_loras": SLOTS, "engine_max_cpu_loras": MEMORY}
    began = 0.0

    async def prepare(home: Path) -> None:
        nonlocal began
        await register(home, ADAPTERS)
        began = time.perf_counter()

    async with (
        attached_stack(prepare=prepare, **settings) as stack,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        async with asyncio.timeout(PROOFS_SECONDS):
            models = await _proven(stack)
        started = time.perf_counter() - began
        load = Load(session, max_tokens=MAX_TOKENS)
        targets = [Target(url=stack.gateway_url, model=model) for model in models]
        direct = [Target(url=stack.engine_url, model=model, api_key=stack.engine_api_key) for model in models]
        figures = {
            "seconds until all were proven, the start of engine and service included": started,
            **await _in_turn(load, targets),
            "seconds that one more adapter waits": {
                "at the engine": await _waited(load, direct),
                "at the gateway": await _waited(load, targets),
                "at the gateway, with nobody else": await _timed(load, targets[SLOTS + 1]),
            },
            "adapters": ADAPTERS,
            "in memory": MEMORY,
        }
    print(json.dumps({"two hundred adapters": figures}))


async def _proven(stack: RunningStack) -> list[str]:
    """Names of all, once they are proven."""
    while True:
        (replica,) = (await stack.client.list_models()).replicas
        if len(replica.models) == ADAPTERS:
            return list(replica.models)
        await asyncio.sleep(LOOK_SECONDS)


async def _in_turn(load: Load, targets: list[Target]) -> dict[str, float]:
    rounds = count()

    async def burst(asked: list[Target]) -> Measured:
        return await load.burst(asked, concurrency=CONCURRENCY, requests=REQUESTS)

    async def all_in_turn() -> Measured:
        first = next(rounds) * REQUESTS % ADAPTERS
        return await burst([*targets[first:], *targets[:first]])

    arms: dict[str, Callable[[], Awaitable[Measured]]] = {
        "one": lambda: burst(targets[:1]),
        "all": all_in_turn,
    }
    results = await interleaved(arms, ROUNDS)

    def speeds(arm: str) -> list[float]:
        return [measured.tokens_per_second for measured in results[arm]]

    def first_tokens(arm: str) -> float:
        return median(measured.median_time_to_first_token_seconds for measured in results[arm])

    return {
        "all in turn against one, tokens per second": median_ratio(speeds("all"), speeds("one")),
        "one adapter, tokens per second": median(speeds("one")),
        "all in turn, tokens per second": median(speeds("all")),
        "one adapter, seconds to first token": first_tokens("one"),
        "all in turn, seconds to first token": first_tokens("all"),
    }


async def _waited(load: Load, targets: list[Target]) -> float:
    """Seconds to the first token of an adapter that is asked while as many as there are slots are busy."""

    async def keep_busy(target: Target) -> None:
        while True:
            await load.burst([target], concurrency=1, requests=1)

    hot = [asyncio.create_task(keep_busy(target)) for target in targets[:SLOTS] for _ in range(CALLERS)]
    try:
        await asyncio.sleep(5.0)  # until all of them are being answered
        return await _timed(load, targets[SLOTS])
    finally:
        for task in hot:
            task.cancel()
        await asyncio.gather(*hot, return_exceptions=True)


async def _timed(load: Load, target: Target) -> float:
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            measured = await load.burst([target], concurrency=1, requests=1)
    except TimeoutError:
        return LIMIT_SECONDS
    return measured.median_time_to_first_token_seconds


if __name__ == "__main__":
    asyncio.run(main())
