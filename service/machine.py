"""What this machine has: main memory within its control group and whether it ran out, and a GPU.

Reads a few small files of the kernel and asks the GPU driver's own tool, without loading torch. Knows neither
models nor what they need.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_GROUP = Path("/sys/fs/cgroup")
_KILL_COUNTERS = (_GROUP / "memory.events", Path("/proc/vmstat"))
"""Files with a line `oom_kill N`: the control group's own, and the machine's where there is no group."""
_TOOL_TIMEOUT_SECONDS = 10
_NO_DEVICES = ("", "-1")
"""What CUDA_VISIBLE_DEVICES is set to where no GPU may be used."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The first one that this process may use."""

    name: str
    memory_bytes: int
    free_bytes: int


def gpu(environment: Mapping[str, str] = os.environ) -> Gpu | None:
    """What the driver's tool tells, if there is one. Blocks for up to a second.

    Of several GPUs it is that which CUDA_VISIBLE_DEVICES names first, by the tool's index or its UUID. A part
    of a GPU ("MIG-...") counts as the first GPU: the tool does not tell the memory of parts.
    """
    tool = shutil.which("nvidia-smi", path=environment.get("PATH"))
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if tool is None or visible in _NO_DEVICES:
        return None
    question = ["--query-gpu=index,uuid,name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            [tool, *question], capture_output=True, text=True, check=True, timeout=_TOOL_TIMEOUT_SECONDS
        )
        rows = [[value.strip() for value in line.split(",")] for line in answer.stdout.splitlines()]
        wanted = (visible or "0").split(",")[0].strip()
        named = (row for row in rows if row[0] == wanted or row[1].startswith(wanted))
        _, _, name, total, free = next(named, rows[0])
        return Gpu(name=name, memory_bytes=int(total) << 20, free_bytes=int(free) << 20)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None  # a tool without a GPU behind it


def main_memory() -> tuple[int, int]:
    """Bytes in all and available now: the machine's, or what a control group leaves of it."""
    memory = psutil.virtual_memory()
    limit = _number(_GROUP / "memory.max")
    if limit is None or limit >= memory.total:
        return memory.total, memory.available
    used = _number(_GROUP / "memory.current") or 0
    return limit, min(memory.available, max(0, limit - used))


def memory_kills(counters: Sequence[Path] = _KILL_COUNTERS) -> int:
    """Processes that the kernel has killed so far for want of memory; 0 where no file of `counters` says."""
    for path in counters:
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None  # no control group, or `max`
