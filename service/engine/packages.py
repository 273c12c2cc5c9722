"""What is installed to serve with."""

from dataclasses import dataclass
from importlib import metadata

PLUGIN_DISTRIBUTION = "hotlora-vllm-cpu-lora"
PLUGIN_GROUP = "vllm.general_plugins"


class EngineCannotStartError(Exception):
    """Something is missing that another try will not bring; the message says what to do."""


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
