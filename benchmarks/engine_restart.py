"""What a killed engine costs a service with fifty adapters: `python -m benchmarks.engine_restart`.

The engine's process group is killed, and two moments are awaited: the new engine is ready, and every adapter
is proven on it again. Both count from the kill, so their ratio is what fifty proofs add to a start.
"""

import asyncio
import json
import os
import signal
import time
from dataclasses import dataclass
from statistics import median

import psutil

from benchmarks.drawn import register
from benchmarks.stack import RunningStack, supervised_stack
from hotlora.errors import HotloraError
from hotlora.v1.chat_service_pb2 import Engine, Replica
from service.engine.command import LAUNCHER

ADAPTERS = 50
ROUNDS = 2
LOOK_SECONDS = 0.1
LIMIT_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Back:
    """An engine that was killed and is back, in seconds from the kill."""

    ready_seconds: float
    first_seconds: float
    """Until one adapter was proven."""
    proven_seconds: float
    """Until all were."""


async def main() -> None:
    """Measure and print."""
    async with supervised_stack(prepare=lambda home: register(home, ADAPTERS)) as stack:
        async with asyncio.timeout(LIMIT_SECONDS):
            await _proven(stack, generation=1, count=ADAPTERS)
            rounds = [await _killed(stack) for _ in range(ROUNDS)]
    figures = {
        "seconds until the engine is ready": median(one.ready_seconds for one in rounds),
        "seconds until the first adapter is proven": median(one.first_seconds for one in rounds),
        "seconds until all adapters are proven": median(one.proven_seconds for one in rounds),
        "all proven against the engine's own start": median(
            one.proven_seconds / one.ready_seconds for one in rounds
        ),
        "adapters proven a second": median(
            ADAPTERS / (one.proven_seconds - one.ready_seconds) for one in rounds
        ),
        "adapters": ADAPTERS,
    }
    print(json.dumps({"an engine killed with its adapters": figures}))


async def _killed(stack: RunningStack) -> Back:
    generation = (await _replica(stack)).generation
    killed = time.perf_counter()
    os.killpg(_engine().pid, signal.SIGKILL)
    while True:
        replica = await _replica(stack)
        if replica.generation > generation and replica.state == Engine.STATE_READY:
            break
        await asyncio.sleep(LOOK_SECONDS)
    ready = time.perf_counter()
    first = await _proven(stack, generation=generation + 1, count=1)
    proven = await _proven(stack, generation=generation + 1, count=ADAPTERS)
    return Back(ready_seconds=ready - killed, first_seconds=first - killed, proven_seconds=proven - killed)


async def _proven(stack: RunningStack, *, generation: int, count: int) -> float:
    """When so many adapters were seen to be proven on that engine or a later one."""
    while True:
        replica = await _replica(stack)
        if replica.generation >= generation and len(replica.models) >= count:
            return time.perf_counter()
        await asyncio.sleep(LOOK_SECONDS)


async def _replica(stack: RunningStack) -> Replica:
    while True:
        try:
            return (await stack.client.list_models()).replicas[0]
        except HotloraError:
            await asyncio.sleep(LOOK_SECONDS)


def _engine() -> psutil.Process:
    """vLLM's API server, which leads its process group."""
    below = psutil.Process(os.getpid()).children(recursive=True)
    return next(
        process
        for process in below
        if LAUNCHER in process.cmdline() and os.getpgid(process.pid) == process.pid
    )


if __name__ == "__main__":
    asyncio.run(main())
