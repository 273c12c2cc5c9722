"""How vLLM is started: its arguments, and the memory that it takes.

Facts about vLLM 0.32 stand here and in `service.engine.environment`, and nowhere else. The process itself is
`service.engine.process`'s.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from service.engine.architectures import takes_adapters
from service.engine.capacity import capacity_of
from service.engine.environment import are_threads_bound, cache_gib, engine_environment
from service.engine.packages import Packages
from service.jsonshape import mapping
from service.machine import Gpu, gpu, main_memory
from service.settings import Settings
from trainer.config import BaseModel
from trainer.processor import has_native_bfloat16

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What --max-lora-rank accepts; buffers are sized by it, so a larger one costs memory and time."""
LAUNCHER = "hotlora_engine"
"""The module of `inside` that the engine's process runs."""
_CPU_PROCESS_BYTES = 3 << 29
"""vLLM's two processes without weights and cache: 1.5 GiB."""
IN_ONE_PROCESS = ("--distributed-executor-backend", "vllm.v1.executor.uniproc_executor.UniProcExecutor")
"""Scheduler and model in one process. vLLM gives the model of a CPU a process of its own, so that its threads
can be pinned, and both processes spin while they wait for each other, the model's for a second after each
answer. By its short name, `uni`, it would change the setting back."""
_POSITIONS = ("max_position_embeddings", "n_positions")
"""What a config.json calls the number of positions; the GPT-2 family has a name of its own for it."""
_WIDTHS = ("hidden_size", "n_embd")
"""What it calls the numbers of an embedding."""


@dataclass(frozen=True, kw_only=True)
class EngineCommand:
    """A process to start."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


def allowed_rank(rank: int) -> int:
    """The smallest rank that vLLM accepts as a limit and that admits `rank`. Raises ValueError above 512."""
    for allowed in RANKS:
        if rank <= allowed:
            return allowed
    raise ValueError(f"rank {rank} is above {RANKS[-1]}, the highest that vLLM serves")


def model_length(settings: Settings, base: BaseModel) -> int:
    """Tokens of prompt and answer together: as set, but not more than the base model's positions."""
    return min([settings.engine_max_model_len, *_numbers(base, _POSITIONS)])


def model_width(base: BaseModel) -> int | None:
    """Numbers of a token's embedding; None where the base model's files do not tell."""
    return next(iter(_numbers(base, _WIDTHS)), None)


def _numbers(base: BaseModel, names: Sequence[str]) -> list[int]:
    try:
        config = mapping(json.loads((base.path / "config.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return []
    return [value for name in names if isinstance(value := config.get(name), int)]


def vllm_command(
    settings: Settings, base: BaseModel, *, port: int, api_key: str, packages: Packages | None = None
) -> EngineCommand:
    """vLLM's API server for `base` on 127.0.0.1:`port`. Raises EngineCannotStartError.

    `packages` None: those beside us.
    """
    packages = packages or Packages.installed()
    return EngineCommand(
        arguments=(
            *_common(settings, base, port, packages),
            # For prompt-tuned versions; what goes into that field is composed by the service alone.
            "--enable-prompt-embeds",
            *(_for_adapters(settings, base) if takes_adapters(base.path) else ()),
            *_gpu_share(packages, settings.engine_gpu_memory_fraction),
        ),
        environment=engine_environment(api_key, packages, compiled_dir=settings.compiled_dir),
    )


def _for_adapters(settings: Settings, base: BaseModel) -> tuple[str, ...]:
    capacity = capacity_of(settings, base)
    return (
        "--enable-lora",
        *("--max-loras", str(capacity.slots)),
        *("--max-lora-rank", str(allowed_rank(settings.engine_max_rank))),
        *("--max-cpu-loras", str(capacity.cached)),
    )


def own_engine_command(
    settings: Settings, model: BaseModel, *, port: int, api_key: str, packages: Packages | None = None
) -> EngineCommand:
    """vLLM's API server for a whole model of ours, which needs no adapters beside it.

    Raises EngineCannotStartError. `packages` None: those beside us.
    """
    packages = packages or Packages.installed()
    return EngineCommand(
        arguments=(
            *_common(settings, model, port, packages),
            # It starts because somebody waits for it: compiling would take longer than most of its lives.
            "--enforce-eager",
            *_gpu_share(packages, settings.own_engine_gpu_memory_fraction),
        ),
        environment=engine_environment(api_key, packages, compiled_dir=settings.compiled_dir),
    )


def _common(settings: Settings, model: BaseModel, port: int, packages: Packages) -> tuple[str, ...]:
    return (
        *(sys.executable, "-P", "-m", LAUNCHER),
        *("--model", str(model.path), "--served-model-name", model.name),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--max-model-len", str(model_length(settings, model))),
        *("--max-num-seqs", str(settings.engine_max_num_seqs)),
        *("--dtype", _dtype() if packages.is_cpu_build else "auto"),
        # Sampling defaults of the model's authors would be mixed into requests; ours are complete.
        *("--generation-config", "vllm"),
        *("--middleware", "hotlora_engine_guard.Guard"),
        *(IN_ONE_PROCESS if packages.is_cpu_build and not are_threads_bound() else ()),
        "--disable-uvicorn-access-log",
        *(("--otlp-traces-endpoint", settings.traces_endpoint) if settings.traces_endpoint else ()),
    )


def _gpu_share(packages: Packages, fraction: float) -> tuple[str, ...]:
    return () if packages.is_cpu_build else ("--gpu-memory-utilization", str(fraction))


@dataclass(frozen=True, kw_only=True)
class Room:
    """Memory that one more engine takes, and what there is."""

    kind: str
    """`memory` or `GPU memory`."""
    needed_bytes: int
    available_bytes: int


def room_for_own_engine(
    settings: Settings,
    model: BaseModel,
    *,
    packages: Packages | None = None,
    look: Callable[[], Gpu | None] = gpu,
) -> Room:
    """Whether an engine for a whole model fits. Blocks for up to a second. Raises EngineCannotStartError.

    vLLM takes its share of a GPU at once, whatever the model, and does not start where less is free.
    """
    packages = packages or Packages.installed()
    found = None if packages.is_cpu_build else look()
    if found is None:
        return Room(kind="memory", needed_bytes=memory_needed(model), available_bytes=main_memory()[1])
    share = int(settings.own_engine_gpu_memory_fraction * found.memory_bytes)
    return Room(kind="GPU memory", needed_bytes=share, available_bytes=found.free_bytes)


def memory_needed(model: BaseModel) -> int:
    """Bytes of main memory that an engine for `model` takes on a CPU: its weights, the cache of keys and
    values, and the process itself. Blocks on disk."""
    weights = sum(file.stat().st_size for file in model.path.glob("*.safetensors"))
    widened = weights if _dtype() == "bfloat16" else 2 * weights  # published in 16 bits
    return widened + (cache_gib(os.environ) << 30) + _CPU_PROCESS_BYTES


def _dtype() -> str:
    """What a CPU computes in: 16 bits wherever the machine multiplies them natively.

    A CPU without such instructions emulates bfloat16 several times slower than it computes 32 bits, and less
    exactly, which blurs the proof of weak adapters too.
    """
    return "bfloat16" if has_native_bfloat16() else "float32"
