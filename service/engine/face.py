"""What the rest of the service may know of an engine: where it stands, and a client for it.

Two things wear this face: `Supervisor` (a child of ours) and `AttachedEngine` (somebody else's). Adapters and
versions are not known here.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from service.engine.capacity import Capacity
from service.engine.client import EngineClient


class EngineState(StrEnum):
    """Where an engine stands."""

    STARTING = "STARTING"
    """The process is starting, or starting again."""
    READY = "READY"
    """It gave a token, and did not miss two health probes since."""
    DOWN = "DOWN"
    """It does not answer; a new try follows by itself."""


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """What an engine takes besides token ids for its base model. True also where nobody could look yet."""

    adapters: bool = True
    """Whether it loads LoRA adapters while it runs."""
    embeddings: bool = True
    """Whether it takes prompts as embeddings."""


class Engine(Protocol):
    """A vLLM server, ours or not."""

    @property
    def name(self) -> str:
        """Tells it from the others, for people, logs and metrics; an address has no credentials there."""

    @property
    def state(self) -> EngineState:
        """Where it stands now."""

    @property
    def generation(self) -> int:
        """0 before the first start; raised whenever what the engine had loaded may be gone."""

    @property
    def restarts(self) -> int:
        """How often it was started, or seen gone and back, after the first time."""

    @property
    def message(self) -> str:
        """One sentence for a person."""

    @property
    def max_rank(self) -> int:
        """Highest adapter rank it serves."""

    @property
    def capacity(self) -> Capacity:
        """How many adapters it holds."""

    @property
    def abilities(self) -> Abilities:
        """What it takes."""

    @property
    def max_model_length(self) -> int:
        """Tokens that prompt and answer together may have."""

    @property
    def supervised(self) -> bool:
        """Whether it is a child of this service, so that a new generation means that the old process is
        gone."""

    @property
    def client(self) -> EngineClient:
        """Client for the present generation. Raises Unavailable where there is none yet."""

    async def run(self) -> None:
        """Keep it going (ours) or keep looking at it (attached) until cancelled."""
