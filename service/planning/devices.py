"""The device that this service trains on: kind and memory, without loading torch.

A GPU is what its driver's own tool tells; else memory is the machine's, or what a control group leaves of it.
Blocks for milliseconds (a GPU's tool: up to a second); callers hand it to a thread.
"""

from dataclasses import dataclass
from importlib import metadata

import psutil

from service.machine import gpu, main_memory
from trainer.processor import cpu_name, has_native_bfloat16


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
    """Look at the machine, and at whether the torch that is installed can use its GPU."""
    is_for_cpus = metadata.version("torch").endswith("+cpu")
    return (None if is_for_cpus else _gpu()) or _cpu()


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
    found = gpu()
    if found is None:
        return None
    return OwnDevice(
        kind="cuda",
        name=found.name,
        memory_bytes=found.memory_bytes,
        available_bytes=found.free_bytes,
        number_bytes=2,
    )
