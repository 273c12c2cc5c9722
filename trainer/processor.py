"""What this machine's CPU calls itself and what it multiplies natively, without loading torch."""

from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_NATIVE_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Flags of x86 (the first two) and Arm CPUs."""


def has_native_bfloat16(cpu_info: Path = _CPU_INFO) -> bool:
    """Whether the CPU has instructions for bfloat16; without them it emulates it, several times slower than
    it computes in 32 bits (10 to 30 times where it has AVX2 alone)."""
    return bool(_NATIVE_BFLOAT16 & set(_read(cpu_info).split()))


def cpu_name() -> str:
    """What the CPU calls itself; `cpu` where it says nothing."""
    for line in _read(_CPU_INFO).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "cpu"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
