"""How many adapters an engine holds at a time, and what follows from the machine where nobody set it.

vLLM has two places for adapters. A slot takes part in a batch: a request whose adapter has none waits. The
cache holds weights in main memory; the least recently used ones give way, and are read from their directory
again when they are asked for.
"""

from dataclasses import dataclass

from service.machine import main_memory
from service.settings import Settings
from trainer.config import BaseModel
from trainer.planning import ShapeError, shape_of_directory
from trainer.processor import has_native_bfloat16

_CACHE_SHARE = 8
"""One part in so many of main memory is for adapters: the rest is for weights, keys and values, and what is
trained beside the engine."""
_MAX_CACHED = 1024
"""More than anybody keeps hot, however small they are."""
_CACHED_OF_UNKNOWN = 64
"""Where the base's files do not tell how large an adapter is."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Of one engine. None: it does not tell, and nobody said."""

    slots: int | None
    """Different adapters in one batch."""
    cached: int | None
    """Adapters in memory, those in slots included."""


UNKNOWN = Capacity(slots=None, cached=None)


def capacity_of(settings: Settings, base: BaseModel, *, memory_bytes: int | None = None) -> Capacity:
    """Of an engine that is started here. `memory_bytes` None: what this machine has, whoever uses it now.
    Blocks on disk."""
    slots = settings.engine_max_loras
    cached = settings.engine_max_cpu_loras or _fitting(settings, base, memory_bytes or main_memory()[0])
    return Capacity(slots=slots, cached=max(cached, slots))


def _fitting(settings: Settings, base: BaseModel, memory_bytes: int) -> int:
    """How many adapters of the highest rank, on all linear layers, fit into an engine's part of memory."""
    try:
        parameters = shape_of_directory(base.path).adapter_parameters(settings.engine_max_rank)
    except ShapeError:
        return _CACHED_OF_UNKNOWN
    number_bytes = 2 if has_native_bfloat16() else 4
    share = memory_bytes // _CACHE_SHARE // settings.most_engines
    return min(_MAX_CACHED, share // max(1, parameters * number_bytes))
