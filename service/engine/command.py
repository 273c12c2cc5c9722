"""How vLLM is started: arguments, environment, and what must be there first.

Facts about vLLM 0.32 stand here and nowhere else. The process itself is `service.engine.process`'s.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from service.engine.architectures import takes_adapters
from service.engine.capacity import capacity_of
from service.jsonshape import mapping
from service.machine import Gpu, gpu, main_memory
from service.settings import Settings, without_settings
from trainer.config import BaseModel
from trainer.processor import has_native_bfloat16

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What --max-lora-rank accepts; buffers are sized by it, so a larger one costs memory and time."""
PLUGIN_DISTRIBUTION = "hotlora-vllm-cpu-lora"
PLUGIN_GROUP = "vllm.general_plugins"
INSIDE = Path(__file__).parent / "inside"
"""Modules that run within the engine's process."""
_FLASHINFER_SAMPLER_VARIABLE = "VLLM_USE_FLASHINFER_SAMPLER"
_CPU_CACHE_VARIABLE = "VLLM_CPU_KVCACHE_SPACE"
_CPU_CACHE_GIB = "1"
"""Keys and values of answers in flight; 64 answers of 2,048 tokens of the default model are 2.8 GiB at
worst, and vLLM queues what does not fit."""
_KEEP_ALIVE_SECONDS = "600"
"""How long vLLM keeps an idle connection: on a busy machine its own 5 s would end one that we use again."""
_CPU_PROCESS_BYTES = 3 << 29
"""vLLM's two processes without weights and cache: 1.5 GiB."""
_BIND_VARIABLE = "VLLM_CPU_OMP_THREADS_BIND"
_UNBOUND = "nobind"
IN_ONE_PROCESS = ("--distributed-executor-backend", "vllm.v1.executor.uniproc_executor.UniProcExecutor")
"""Scheduler and model in one process. vLLM gives the model of a CPU a process of its own, so that its threads
can be pinned, and both processes spin while they wait for each other, the model's for a second after each
answer. By its short name, `uni`, it would change the setting back."""
_POSITIONS = ("max_position_embeddings", "n_positions")
"""What a config.json calls the number of positions; the GPT-2 family has a name of its own for it."""
_WIDTHS = ("hidden_size", "n_embd")
"""What it calls the numbers of an embedding."""


class EngineCannotStartError(Exception):
    """Something is missing that another try will not bring; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class EngineCommand:
    """A process to start."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Packages:
    """What is installed for the engine."""

    is_cpu_build: bool
    """Whether the vLLM is the one for CPUs."""
    cpu_plugin: str | None
    """Entry point of our plugin for it; None where it is not installed."""

    @classmethod
    def installed(cls) -> "Packages":
        """Those beside us. Raises EngineCannotStartError where there is no vLLM."""
        names = {distribution.name for distribution in metadata.distributions()}
        if not names & {"vllm", "vllm-cpu"}:
            raise EngineCannotStartError(
                "vLLM is not installed: run deploy/setup.sh, or set HOTLORA_ENGINE_URLS to running engines"
            )
        plugins = [
            entry.name
            for entry in metadata.entry_points(group=PLUGIN_GROUP)
            if entry.dist is not None and entry.dist.name.replace("_", "-") == PLUGIN_DISTRIBUTION
        ]
        return cls(
            is_cpu_build="vllm-cpu" in names or "cpu" in metadata.version("vllm"),
            cpu_plugin=plugins[0] if plugins else None,
        )


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
        environment={**without_settings(os.environ), **_environment(api_key, packages)},
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
        environment={**without_settings(os.environ), **_environment(api_key, packages)},
    )


def _common(settings: Settings, model: BaseModel, port: int, packages: Packages) -> tuple[str, ...]:
    return (
        *(sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model.path), "--served-model-name", model.name),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--max-model-len", str(model_length(settings, model))),
        *("--max-num-seqs", str(settings.engine_max_num_seqs)),
        *("--dtype", _dtype() if packages.is_cpu_build else "auto"),
        # Sampling defaults of the model's authors would be mixed into requests; ours are complete.
        *("--generation-config", "vllm"),
        *("--middleware", "hotlora_engine_guard.Guard"),
        *(IN_ONE_PROCESS if packages.is_cpu_build and _thread_binding() == _UNBOUND else ()),
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


def cache_gib(environment: Mapping[str, str]) -> int:
    """GiB for keys and values on a CPU: as `environment` says, by vLLM's own variable, else ours.

    Raises EngineCannotStartError where it says no whole number.
    """
    said = environment.get(_CPU_CACHE_VARIABLE) or _CPU_CACHE_GIB
    try:
        return int(said)
    except ValueError:
        raise EngineCannotStartError(
            f"{_CPU_CACHE_VARIABLE} is {said!r}; it takes a whole number of GiB, for example {_CPU_CACHE_GIB}"
        ) from None


def _environment(api_key: str, packages: Packages) -> dict[str, str]:
    search_path = [str(INSIDE), *filter(None, [os.environ.get("PYTHONPATH")])]
    common = {
        "PYTHONPATH": os.pathsep.join(search_path),
        "VLLM_API_KEY": api_key,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        # Without effect where nothing is traced. vLLM would take gRPC, whose port is another.
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_SERVICE_NAME": "hotlora-engine",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": _KEEP_ALIVE_SECONDS,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    if not packages.is_cpu_build:
        # vLLM's choice there is compiled at the first token, by a compiler that a driver does not bring; an
        # engine without it dies (vllm-project/vllm#49497).
        sampler = os.environ.get(_FLASHINFER_SAMPLER_VARIABLE, "0")
        return {**common, _FLASHINFER_SAMPLER_VARIABLE: sampler}
    if packages.cpu_plugin is None:
        # Without it the CPU build answers requests for the base with an adapter's weights when both share a
        # batch.
        raise EngineCannotStartError(
            f"vLLM's CPU build mixes up base and adapters without the plugin {PLUGIN_DISTRIBUTION}, which is "
            "not installed: run deploy/setup.sh, or pip install deploy/vllm_plugin"
        )
    threads = str(len(os.sched_getaffinity(0)))
    return {
        **common,
        "VLLM_PLUGINS": ",".join(dict.fromkeys([*_chosen_plugins(), packages.cpu_plugin])),
        _CPU_CACHE_VARIABLE: str(cache_gib(os.environ)),
        # Left to itself vLLM pins its threads to cores and leaves one core unused; the trainer wants to
        # share.
        _BIND_VARIABLE: _thread_binding(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
        # Threads that wait for work sleep instead of spinning against a training run on the same cores.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }


def _thread_binding() -> str:
    return os.environ.get(_BIND_VARIABLE, _UNBOUND)


def _dtype() -> str:
    """What a CPU computes in: 16 bits wherever the machine multiplies them natively.

    A CPU without such instructions emulates bfloat16 several times slower than it computes 32 bits, and less
    exactly, which blurs the proof of weak adapters too.
    """
    return "bfloat16" if has_native_bfloat16() else "float32"


def _chosen_plugins() -> list[str]:
    """Plugins that the operator asked for; ours are added to them."""
    return [name for name in os.environ.get("VLLM_PLUGINS", "").split(",") if name]
