"""The device that this service trains on: kind and memory, without loading torch.

A GPU is what its driver's own tool tells; else memory is the machine's, or what a control group leaves of it.
Blocks for milliseconds (a GPU's tool: up to a second); callers hand it to a thread.
"""

import shutil
import subprocess
from dataclasses import dataclass

import psutil

from service.machine import cpu_name, has_native_bfloat16, main_memory

_TOOL_TIMEOUT_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class OwnDevice:
    """Where this service trains."""

    kind: str
    """`cpu` or `cuda`."""
    name: str
    """Tells devices apart, for figures that were measured on one."""
    memory_bytes: int
    available_bytes: int
    number_bytes: int
    """Of the arithmetic that is thought to be fastest; a probe measures it."""


def own_device() -> OwnDevice:
    """Look at the machine."""
    return _gpu() or _cpu()


def _cpu() -> OwnDevice:
    total, available = main_memory()
    return OwnDevice(
        kind="cpu",
        name=f"{cpu_name()} x {psutil.cpu_count()}",
        memory_bytes=total,
        available_bytes=available,
        number_bytes=2 if has_native_bfloat16() else 4,
    )


def _gpu() -> OwnDevice | None:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    question = ["--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            [tool, *question], capture_output=True, text=True, check=True, timeout=_TOOL_TIMEOUT_SECONDS
        )
        name, total, free = answer.stdout.splitlines()[0].rsplit(",", 2)
        return OwnDevice(
            kind="cuda",
            name=name.strip(),
            memory_bytes=int(total) << 20,
            available_bytes=int(free) << 20,
            number_bytes=2,
        )
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None  # a tool without a GPU behind it
