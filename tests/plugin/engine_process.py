"""A real vLLM server in its own process group, for as long as a test needs it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

START_SECONDS = 240.0
"""A start takes 25 to 90 s on two idle cores; more while other things run."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A server that answered that it is ready."""

    url: str
    log: list[str]
    """Its output so far, line by line."""


@asynccontextmanager
async def running_engine(
    *, model_dir: Path, adapters: Mapping[str, Path], max_loras: int
) -> AsyncIterator[Engine]:
    """Serves the model as `base` and each adapter under its own name, without a prefix cache.

    Without that cache every request is computed with the requests it arrives with, which is what is tested.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Without AVX-512 the engine itself multiplies bf16 in a scalar loop, several times slower than fp32.
    dtype = "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *(
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--model",
            str(model_dir),
            "--served-model-name",
            "base",
        ),
        *("--dtype", dtype, "--max-model-len", "256", "--no-enable-prefix-caching"),
        *("--enable-lora", "--max-loras", str(max_loras), "--max-cpu-loras", str(len(adapters))),
        *("--lora-modules", *(f"{name}={path}" for name, path in adapters.items())),
        env=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    log: list[str] = []
    ready = asyncio.Event()
    reader = asyncio.create_task(_read_log(process, log, ready))
    try:
        async with asyncio.timeout(START_SECONDS):
            await ready.wait()
        if process.returncode is not None or reader.done():
            raise RuntimeError("the engine ended while starting:\n" + "".join(log[-30:]))
        yield Engine(url=f"http://127.0.0.1:{port}", log=log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await reader


async def _read_log(process: asyncio.subprocess.Process, log: list[str], ready: asyncio.Event) -> None:
    """Collects the output; sets `ready` when the server says so, or when there is no more output."""
    assert process.stdout is not None
    async for line in process.stdout:
        log.append(line.decode(errors="replace"))
        if "Application startup complete" in log[-1]:
            ready.set()
    ready.set()
