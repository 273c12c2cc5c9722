"""vLLM's classes for the tests that need them, imported late: importing vLLM takes ten seconds and warns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from service.engine.packages import Packages

if TYPE_CHECKING:
    from hotlora_vllm_cpu_lora.punica_wrapper import HotloraPunicaWrapperCPU
    from vllm.lora.layers import LoRAMapping
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU


# On a GPU there is another vLLM, whose own operators are right, and no plugin.
collect_ignore_glob = [] if Packages.installed().is_cpu_build else ["test_*.py"]


@dataclass(frozen=True, kw_only=True)
class EngineClasses:
    """What the wrapper's tests build on."""

    corrected: type[HotloraPunicaWrapperCPU]
    stock: type[PunicaWrapperCPU]
    mapping: type[LoRAMapping]


@pytest.fixture(scope="session")
def engine_classes() -> EngineClasses:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from hotlora_vllm_cpu_lora.punica_wrapper import HotloraPunicaWrapperCPU  # noqa: PLC0415
        from vllm.lora.layers import LoRAMapping  # noqa: PLC0415
        from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU  # noqa: PLC0415
    return EngineClasses(corrected=HotloraPunicaWrapperCPU, stock=PunicaWrapperCPU, mapping=LoRAMapping)
