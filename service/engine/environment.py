"""The variables that vLLM is started with.

Those of vLLM, torch and OpenMP that the operator has set himself are kept.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from service.engine.packages import PLUGIN_DISTRIBUTION, EngineCannotStartError, Packages
from service.settings import without_settings

INSIDE = Path(__file__).parent / "inside"
"""Modules that run within the engine's process."""
_FLASHINFER_SAMPLER_VARIABLE = "VLLM_USE_FLASHINFER_SAMPLER"
_CPU_CACHE_VARIABLE = "VLLM_CPU_KVCACHE_SPACE"
_CPU_CACHE_GIB = "1"
"""Keys and values of answers in flight; 64 answers of 2,048 tokens of the default model are 2.8 GiB at
worst, and vLLM queues what does not fit."""
_KEEP_ALIVE_SECONDS = "600"
"""How long vLLM keeps an idle connection: on a busy machine its own 5 s would end one that we use again."""
_BIND_VARIABLE = "VLLM_CPU_OMP_THREADS_BIND"
_UNBOUND = "nobind"
_PROCESS_VARIABLE = "VLLM_WORKER_MULTIPROC_METHOD"


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


def are_threads_bound() -> bool:
    """Whether vLLM pins its threads to cores, which the operator has to ask for."""
    return os.environ.get(_BIND_VARIABLE, _UNBOUND) != _UNBOUND


def engine_environment(api_key: str, packages: Packages, *, compiled_dir: Path) -> dict[str, str]:
    """Everything, of this process's own variables too. Raises EngineCannotStartError.

    What torch compiles is kept in `compiled_dir` from one start to the next.
    """
    specific = _for_cpu(packages.cpu_plugin) if packages.is_cpu_build else _for_cuda()
    return {**without_settings(os.environ), **_common(api_key, compiled_dir), **specific}


def _common(api_key: str, compiled_dir: Path) -> dict[str, str]:
    search_path = [str(INSIDE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
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
        # Else torch keeps it among the temporary files, which go with the engine.
        **_kept({"TORCHINDUCTOR_CACHE_DIR": str(compiled_dir)}),
    }


def _for_cuda() -> dict[str, str]:
    # vLLM's choice there is compiled at the first token, by a compiler that a driver does not bring; an
    # engine without it dies (vllm-project/vllm#49497).
    return _kept({_FLASHINFER_SAMPLER_VARIABLE: "0"})


def _for_cpu(plugin: str | None) -> dict[str, str]:
    if plugin is None:
        # Without it the CPU build answers requests for the base with an adapter's weights when both share a
        # batch.
        raise EngineCannotStartError(
            f"vLLM's CPU build mixes up base and adapters without the plugin {PLUGIN_DISTRIBUTION}, which is "
            "not installed: run deploy/setup.sh, or pip install deploy/vllm_plugin"
        )
    # Pinned threads want a process of their own, which imports everything with its threads' number known.
    process = "spawn" if are_threads_bound() else "fork"
    return {
        "VLLM_PLUGINS": ",".join(dict.fromkeys([*_chosen_plugins(), plugin])),
        _CPU_CACHE_VARIABLE: str(cache_gib(os.environ)),
        **_kept(
            {
                # Left to itself vLLM pins its threads to cores and leaves one core unused; the trainer wants
                # to share.
                _BIND_VARIABLE: _UNBOUND,
                _PROCESS_VARIABLE: process,
                "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
                # Threads that wait for work sleep instead of spinning against a training run on these cores.
                "OMP_WAIT_POLICY": "PASSIVE",
                # With adapters vLLM compiles nothing on a CPU but the ranks of log-probabilities, which
                # every proof asks for: seconds at each start, and without a C++ compiler and Python's headers
                # an engine that dies of its first proof. Set to 0, it has a base that takes no
                # adapters compiled, which then answers somewhat quicker.
                "TORCH_COMPILE_DISABLE": "1",
            }
        ),
    }


def _kept(defaults: Mapping[str, str]) -> dict[str, str]:
    """Those, but as the operator set them where he did."""
    return {name: os.environ.get(name, value) for name, value in defaults.items()}


def _chosen_plugins() -> list[str]:
    """Plugins that the operator asked for; ours are added to them."""
    return [name for name in os.environ.get("VLLM_PLUGINS", "").split(",") if name]
