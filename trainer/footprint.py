"""How much memory this process has, and had at most: resident, or allocated on its GPU."""

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    """Resident in this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def peak_bytes(device: torch.device) -> int:
    """The highest so far, or since `forget_peak`: allocated on the GPU, or resident in this process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident_bytes()


def peak_resident_bytes() -> int:
    """The highest resident size so far, or since `forget_peak`.

    Not `ru_maxrss` where the kernel tells it otherwise: a process begins with its parent's there, because
    the figure survives exec (getrusage(2), proc_pid_status(5)).
    """
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def give_back() -> None:
    """Give memory that was freed back to the machine, now: glibc keeps blocks below 32 MiB for later, and a
    base that was quantised or released leaves gigabytes of them."""
    with contextlib.suppress(AttributeError):  # other C libraries keep less, and have no such function
        ctypes.CDLL(None).malloc_trim(0)


def forget_peak(device: torch.device) -> None:
    """Let the peak begin anew, where the kernel allows it; else what was before counts too."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        print(f"the peak of what was before counts as well: {error}", file=sys.stderr)
