"""The plugin refuses engines that it does not know, with a reason, and the engine's own start then fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from hotlora_vllm_cpu_lora.compatibility import (
    SIGNATURES,
    UnsupportedEngineError,
    check_platform_hook,
    check_version,
    check_wrapper_class,
)

from tests.plugin.conftest import EngineClasses

SERVER_OF_ANOTHER_VERSION = """
import runpy, sys
import vllm
vllm.__version__ = "0.33.0"
sys.argv = ["api_server", "--model", "none", "--host", "127.0.0.1"]
runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
"""


@pytest.mark.parametrize("version", ["0.32.0", "0.32.1", "0.32.0+cpu"])
def test_versions_that_were_tested_are_accepted(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["0.31.9", "0.33.0", "0.320.0", "1.32.0", "dev", ""])
def test_other_versions_are_refused_with_both_versions_named(version: str) -> None:
    with pytest.raises(UnsupportedEngineError, match=rf"version {version}; supported are 0\.32\.\*"):
        check_version(version)


def test_a_platform_with_another_lora_class_is_refused() -> None:
    with pytest.raises(UnsupportedEngineError, match=r"other\.Wrapper"):
        check_platform_hook("other.Wrapper")


def test_a_class_with_the_known_methods_is_accepted() -> None:
    check_wrapper_class(_stock_like_class({}))


def test_a_method_with_a_new_parameter_is_refused() -> None:
    def add_lora_linear(self, y, x, extra):  # type: ignore[no-untyped-def]
        pass

    changed = _stock_like_class({"add_lora_linear": add_lora_linear})
    with pytest.raises(UnsupportedEngineError, match=r"takes \(self, y, x, extra\); expected"):
        check_wrapper_class(changed)


@pytest.mark.parametrize("name", ["add_lora_logits", "token_lora_indices"])
def test_a_class_that_lacks_something_relied_upon_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedEngineError, match=f"{name} is not a"):
        check_wrapper_class(_stock_like_class({name: None}))


def test_the_installed_vllm_fits(engine_classes: EngineClasses) -> None:
    check_wrapper_class(engine_classes.stock)


@pytest.mark.engine
def test_a_server_of_another_version_refuses_to_start() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "VLLM_PLUGINS"}
    answer = subprocess.run(
        [sys.executable, "-c", SERVER_OF_ANOTHER_VERSION],
        env=environment | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert answer.returncode != 0
    assert (
        "UnsupportedEngineError: hotlora-vllm-cpu-lora does not fit this engine: vLLM is version 0.33.0"
        in (answer.stderr)
    )


def _stock_like_class(changes: dict[str, object]) -> type:
    """A class with exactly the members that the plugin relies upon, but for `changes`."""
    members: dict[str, object] = {name: _function(parameters) for name, parameters in SIGNATURES.items()}
    members |= {
        "token_lora_indices": property(lambda self: None),
        "sampler_indices": property(lambda self: None),
    }
    return type("Wrapper", (), members | changes)


def _function(parameters: tuple[str, ...]) -> Callable[..., None]:
    namespace: dict[str, Callable[..., None]] = {}
    exec(f"def method({', '.join(parameters)}): pass", namespace)
    return namespace["method"]
