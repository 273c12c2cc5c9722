"""The gateway against the engine behind it, throughput and first token: `python -m benchmarks.gateway`.

Both arms ask the same vLLM the same kind of questions, in turn, so their ratio is what the gateway costs. A
third asks the engine again: how far that one is from the first is what the machine's noise alone does.
"""

import asyncio
import json
from operator import sub
from statistics import median

import aiohttp

from benchmarks.load import Load, Measured, Target
from benchmarks.rounds import interleaved, median_ratio
from benchmarks.stack import attached_stack

ROUNDS = 5
CONCURRENCIES = (1, 8, 32, 64)
MAX_TOKENS = 32


async def main() -> None:
    """Measure and print."""
    async with attached_stack() as stack, aiohttp.ClientSession() as session:
        load = Load(session, max_tokens=MAX_TOKENS)
        direct = Target(url=stack.engine_url, model=stack.base_model, api_key=stack.engine_api_key)
        gateway = Target(url=stack.gateway_url, model=stack.base_model)
        figures: dict[str, dict[str, object]] = {}
        for concurrency in CONCURRENCIES:
            requests = max(2, concurrency)

            async def burst(target: Target, *, at: int = concurrency, count: int = requests) -> Measured:
                return await load.burst([target], concurrency=at, requests=count)

            for target in (direct, gateway):
                await burst(target)
            arms = {
                "direct": lambda: burst(direct),
                "gateway": lambda: burst(gateway),
                "direct again": lambda: burst(direct),
            }
            results = await interleaved(arms, ROUNDS)
            figures[f"concurrency {concurrency}"] = {
                "direct tokens per second": median(m.tokens_per_second for m in results["direct"]),
                "gateway": _compared(results["gateway"], results["direct"]),
                "noise: direct again": _compared(results["direct again"], results["direct"]),
            }
    print(json.dumps({"gateway against direct vLLM": figures}))


def _compared(arm: list[Measured], direct: list[Measured]) -> dict[str, float]:
    def first(measured: list[Measured]) -> list[float]:
        return [m.median_time_to_first_token_seconds for m in measured]

    return {
        "throughput ratio": median_ratio(
            [m.tokens_per_second for m in arm], [m.tokens_per_second for m in direct]
        ),
        "time to first token ratio": median_ratio(first(arm), first(direct)),
        "added milliseconds to first token": 1000 * median(map(sub, first(arm), first(direct))),
    }


if __name__ == "__main__":
    asyncio.run(main())
