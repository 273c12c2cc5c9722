"""What vLLM calls at start, in each of its processes: puts this package's LoRA class in place of vLLM's own.

Imports neither torch nor vLLM at the top. vLLM logs and ignores a plugin whose import fails and would then
serve with the operators that this package corrects; an error raised by `register` ends the process instead.
"""

from __future__ import annotations

from hotlora_vllm_cpu_lora.compatibility import check_platform_hook, check_version, check_wrapper_class

REPLACEMENT = "hotlora_vllm_cpu_lora.punica_wrapper.HotloraPunicaWrapperCPU"
"""Also printed by vLLM (its last part), when it creates the class."""

ACTIVE_MESSAGE = "hotlora-vllm-cpu-lora is active: corrected CPU LoRA operators are in use"
"""Logged once by the process that holds the model, when LoRA is enabled. Supervisors may look for it."""


def register() -> None:
    """Replaces the CPU platform's LoRA class; does nothing on other platforms, and nothing when called again.

    Raises UnsupportedEngineError where this vLLM is not one that the plugin is known to fit.
    """
    from vllm.platforms import current_platform  # noqa: PLC0415

    if not current_platform.is_cpu() or current_platform.get_punica_wrapper() == REPLACEMENT:
        return
    import vllm  # noqa: PLC0415

    check_version(vllm.__version__)
    check_platform_hook(current_platform.get_punica_wrapper())
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU  # noqa: PLC0415

    check_wrapper_class(PunicaWrapperCPU)
    setattr(type(current_platform), "get_punica_wrapper", classmethod(lambda cls: REPLACEMENT))  # noqa: B010
