"""A real vLLM server in its own process group, for as long as a test needs it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from service.engine.command import IN_ONE_PROCESS, LAUNCHER
from service.engine.environment import INSIDE

START_SECONDS = 600.0
"""A start takes 20 s on two idle cores; more while other things run."""
POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A server that answered that it is ready."""

    socket_path: Path
    """Where it listens; a free port found now might be taken by the time the engine is up."""
    log: list[str]
    """Its output so far, line by line."""


@asynccontextmanager
async def running_engine(
    *, model_dir: Path, adapters: Mapping[str, Path], max_loras: int, socket_path: Path
) -> AsyncIterator[Engine]:
    """Serves the model as `base` and each adapter under its own name, without a prefix cache.

    Without that cache every request is computed with the requests it arrives with, which is what is tested.
    """
    # Without AVX-512 the engine itself multiplies bf16 in a scalar loop, several times slower than fp32.
    dtype = "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", LAUNCHER),
        *("--uds", str(socket_path), "--model", str(model_dir), "--served-model-name", "base"),
        *("--dtype", dtype, "--max-model-len", "256", "--no-enable-prefix-caching"),
        *("--enable-lora", "--max-loras", str(max_loras), "--max-cpu-loras", str(len(adapters))),
        *("--lora-modules", *(f"{name}={path}" for name, path in adapters.items())),
        # And, below, with no thread bound to a core, and forked off its server, as our service has it.
        *IN_ONE_PROCESS,
        env={
            **os.environ,
            "PYTHONPATH": str(INSIDE),
            "VLLM_WORKER_MULTIPROC_METHOD": "fork",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_WAIT_POLICY": "PASSIVE",
            # No compiler is needed, and no seconds of compiling.
            "TORCH_COMPILE_DISABLE": "1",
            # TRL, where a test imported it, silences every vLLM that is started afterwards.
            "VLLM_LOGGING_LEVEL": "INFO",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    log: list[str] = []
    is_ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    reader = asyncio.create_task(_read_log(process, log, is_ready))
    try:
        async with asyncio.timeout(START_SECONDS):
            if not await is_ready:
                raise RuntimeError("the engine ended while starting:\n" + "".join(log[-30:]))
            await _listening(socket_path)
        yield Engine(socket_path=socket_path, log=log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await reader


async def _listening(socket_path: Path) -> None:
    """Returns once connections are taken; the server says that it is ready a moment too early."""
    while True:
        try:
            _, writer = await asyncio.open_unix_connection(socket_path)
        except ConnectionRefusedError:
            await asyncio.sleep(POLL_SECONDS)
        else:
            writer.close()
            return await writer.wait_closed()


async def _read_log(
    process: asyncio.subprocess.Process, log: list[str], is_ready: asyncio.Future[bool]
) -> None:
    """Collects the output; says that the server is ready, or that it ended before it was."""
    assert process.stdout is not None
    async for line in process.stdout:
        log.append(line.decode(errors="replace"))
        if "Application startup complete" in log[-1] and not is_ready.done():
            is_ready.set_result(True)
    if not is_ready.done():
        is_ready.set_result(False)
