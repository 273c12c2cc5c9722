"""The device that this service trains on: kind and memory, without loading torch.

A GPU is what its driver's own tool tells; else memory is the machine's, or what a control group leaves of it.
Blocks for milliseconds (a GPU's tool: up to a second); callers hand it to a thread.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

_GROUP = Path("/sys/fs/cgroup")
_TOOL_TIMEOUT_SECONDS = 10
_FAST_BFLOAT16 = ("amx_bf16", "avx512_bf16")
"""Flags of processors that multiply 16-bit numbers faster than 32-bit ones. A guess: a probe measures it."""


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
    """Of the arithmetic that is thought to be fastest."""


def own_device() -> OwnDevice:
    """Look at the machine."""
    return _gpu() or _cpu()


def _cpu() -> OwnDevice:
    memory = psutil.virtual_memory()
    limit = _number(_GROUP / "memory.max")
    total, available = memory.total, memory.available
    if limit is not None and limit < total:
        used = _number(_GROUP / "memory.current") or 0
        total, available = limit, min(available, max(0, limit - used))
    flags, model = _processor()
    return OwnDevice(
        kind="cpu",
        name=f"{model} x {psutil.cpu_count()}",
        memory_bytes=total,
        available_bytes=available,
        number_bytes=2 if any(flag in flags for flag in _FAST_BFLOAT16) else 4,
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


def _processor() -> tuple[frozenset[str], str]:
    flags: frozenset[str] = frozenset()
    model = "cpu"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return flags, model
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split()), model
        if name.strip() == "model name":
            model = value.strip()
    return flags, model


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None  # no control group, or `max`
