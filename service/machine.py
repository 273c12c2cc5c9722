"""What this machine has: main memory within its control group, and what its processor multiplies natively.

Reads a few small files of the kernel, without loading torch. Knows neither models nor what they need.
"""

from pathlib import Path

import psutil

_GROUP = Path("/sys/fs/cgroup")
_CPU_INFO = Path("/proc/cpuinfo")
_NATIVE_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Flags of x86 (the first two) and Arm CPUs."""


def main_memory() -> tuple[int, int]:
    """Bytes in all and available now: the machine's, or what a control group leaves of it."""
    memory = psutil.virtual_memory()
    limit = _number(_GROUP / "memory.max")
    if limit is None or limit >= memory.total:
        return memory.total, memory.available
    used = _number(_GROUP / "memory.current") or 0
    return limit, min(memory.available, max(0, limit - used))


def has_native_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16; without them it emulates it, several times slower than
    it computes in 32 bits."""
    return bool(_NATIVE_BFLOAT16 & set(_cpu_info().split()))


def cpu_name() -> str:
    """What the CPU calls itself; `cpu` where it says nothing."""
    for line in _cpu_info().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "cpu"


def _cpu_info() -> str:
    try:
        return _CPU_INFO.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None  # no control group, or `max`
