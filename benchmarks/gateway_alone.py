"""Requests a second that the gateway holds before a fast engine: `python -m benchmarks.gateway_alone`.

A stand-in answers at once with five tokens (the tests' double of vLLM, a process of its own). It, whoever
asks and the service share the machine's cores, so the processor time of the service for each request is told
too: its inverse is what one core holds by itself.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import aiohttp
import psutil

from benchmarks.load import Load, Target
from benchmarks.stack import ROOT, RunningStack, free_port, service_before, settings_for
from hotlora.stack import Program, Stack
from service.base_model import resolve_base_model

ROUNDS = 5
CONCURRENCIES = (1, 8, 32, 64)
REQUESTS = 300
TOKENS = 5
"""Of each answer of the stand-in."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """One burst."""

    requests_per_second: float
    first_token_seconds: float
    processor_seconds: float
    """Of the service, for each request."""


async def main() -> None:
    """Measure and print."""
    figures = {}
    async with _stack() as stack, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        load, target = Load(session, max_tokens=16), Target(url=stack.gateway_url, model=stack.base_model)
        for concurrency in CONCURRENCIES:
            await _burst(load, target, concurrency)
            held = [await _burst(load, target, concurrency) for _ in range(ROUNDS)]
            figures[f"concurrency {concurrency}"] = {
                "requests per second": median(one.requests_per_second for one in held),
                "requests per second of one core": 1 / median(one.processor_seconds for one in held),
                "milliseconds to first token": 1000 * median(one.first_token_seconds for one in held),
            }
    print(json.dumps({"the gateway alone": figures}))


async def _burst(load: Load, target: Target, concurrency: int) -> Held:
    before = _service().cpu_times()
    measured = await load.burst([target], concurrency=concurrency, requests=REQUESTS)
    after = _service().cpu_times()
    return Held(
        requests_per_second=measured.tokens_per_second / TOKENS,
        first_token_seconds=measured.median_time_to_first_token_seconds,
        processor_seconds=(after.user + after.system - before.user - before.system) / REQUESTS,
    )


@asynccontextmanager
async def _stack() -> AsyncIterator[RunningStack]:
    """A service before the stand-in."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        settings = settings_for(home)
        base, _ = await resolve_base_model(settings.base_model, settings.models_dir)
        port = free_port()
        stand_in = Program(
            title="stand-in",
            command=(
                *(sys.executable, "-m", "tests.doubles.engine", "--port", str(port)),
                *("--model", str(base.path), "--served-model-name", base.name),
            ),
            environment={"PYTHONPATH": str(ROOT)},
            log_path=home / "stand-in.log",
        )
        async with (
            Stack([stand_in]),
            service_before(home, f"http://127.0.0.1:{port}") as running,
        ):
            yield running


def _service() -> psutil.Process:
    below = psutil.Process(os.getpid()).children(recursive=True)
    return next(process for process in below if process.cmdline()[1:3] == ["-m", "service"])


if __name__ == "__main__":
    asyncio.run(main())
