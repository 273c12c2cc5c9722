"""The engine: a vLLM server, started and supervised here or attached to by URL, and the client for it."""

from service.engine.attached import AttachedEngine
from service.engine.client import EngineClient
from service.engine.face import Abilities, Engine, EngineState
from service.engine.fleet import Fleet, fleet
from service.engine.supervisor import Supervisor
from service.engine.wire import Chunk, EngineModel, EngineRefused, Sampling

__all__ = [
    "Abilities",
    "AttachedEngine",
    "Chunk",
    "Engine",
    "EngineClient",
    "EngineModel",
    "EngineRefused",
    "EngineState",
    "Fleet",
    "Sampling",
    "Supervisor",
    "fleet",
]
