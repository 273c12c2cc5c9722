"""Decides whether the vLLM beside this package is the one whose classes it replaces. Changes nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

SUPPORTED_VERSIONS = ("0.32.",)
"""Beginnings of the vLLM versions that the tests have run against."""

STOCK_WRAPPER = "vllm.lora.punica_wrapper.punica_cpu.PunicaWrapperCPU"
"""What the CPU platform of those versions names as its LoRA class."""

SIGNATURES: Mapping[str, tuple[str, ...]] = {
    "__init__": ("self", "max_num_batched_tokens", "max_batches", "device", "**kwargs"),
    "update_metadata": ("self", "mapping", "lora_index_to_id", "max_loras", "vocab_size", "**kwargs"),
    "add_shrink": ("self", "y", "x", "lora_a_stacked", "scale", "**kwargs"),
    "add_expand": (
        "self",
        "y",
        "x",
        "lora_b_stacked",
        "output_slices",
        "offset_start",
        "add_inputs",
        "**kwargs",
    ),
    "add_lora_embedding": ("self", "y", "x", "lora_b_stacked", "add_inputs", "**kwargs"),
    "add_lora_linear": (
        "self",
        "y",
        "x",
        "lora_a_stacked",
        "lora_b_stacked",
        "scale",
        "output_slices",
        "buffer",
        "**kwargs",
    ),
    "add_lora_logits": (
        "self",
        "y",
        "x",
        "lora_a_stacked",
        "lora_b_stacked",
        "scale",
        "buffer",
        "**kwargs",
    ),
}
"""The methods that HotloraPunicaWrapperCPU overrides, with their parameters in the supported versions."""

READ_PROPERTIES = ("token_lora_indices", "sampler_indices")
"""The properties that HotloraPunicaWrapperCPU reads after `update_metadata`."""


class UnsupportedEngineError(RuntimeError):
    """This vLLM is not one that the operators are known to fit. Raised at start, so that the engine does not
    serve."""


def check_version(version: str) -> None:
    """Raises UnsupportedEngineError unless `version` is one that the plugin was tested with."""
    if not version.startswith(SUPPORTED_VERSIONS):
        accepted = ", ".join(f"{beginning}*" for beginning in SUPPORTED_VERSIONS)
        raise UnsupportedEngineError(_refusal(f"vLLM is version {version}; supported are {accepted}"))


def check_platform_hook(wrapper_name: str) -> None:
    """Raises UnsupportedEngineError unless the platform names the class that the plugin knows how to
    replace."""
    if wrapper_name != STOCK_WRAPPER:
        raise UnsupportedEngineError(
            _refusal(f"the CPU platform uses {wrapper_name} for LoRA; expected {STOCK_WRAPPER}")
        )


def check_wrapper_class(wrapper_class: type) -> None:
    """Raises UnsupportedEngineError unless the stock class has the methods, parameters and properties relied
    upon."""
    for method_name, expected in SIGNATURES.items():
        method = inspect.getattr_static(wrapper_class, method_name, None)
        if not inspect.isfunction(method):
            raise UnsupportedEngineError(_refusal(f"{wrapper_class.__name__}.{method_name} is not a method"))
        found = parameter_names(method)
        if found != expected:
            raise UnsupportedEngineError(
                _refusal(
                    f"{wrapper_class.__name__}.{method_name} takes ({', '.join(found)}); "
                    f"expected ({', '.join(expected)})"
                )
            )
    for property_name in READ_PROPERTIES:
        if not isinstance(inspect.getattr_static(wrapper_class, property_name, None), property):
            raise UnsupportedEngineError(
                _refusal(f"{wrapper_class.__name__}.{property_name} is not a property")
            )


def parameter_names(function: Callable[..., object]) -> tuple[str, ...]:
    """The parameters in order, with `**` before the one that takes all other keywords."""
    return tuple(
        f"**{name}" if parameter.kind is inspect.Parameter.VAR_KEYWORD else name
        for name, parameter in inspect.signature(function).parameters.items()
    )


def _refusal(reason: str) -> str:
    return (
        f"hotlora-vllm-cpu-lora does not fit this engine: {reason}. vLLM's own CPU LoRA operators answer "
        "base requests with an adapter's weights, so the engine must not start without a fitting plugin. "
        "Install the vLLM that the plugin supports, or uninstall hotlora-vllm-cpu-lora to accept that."
    )
