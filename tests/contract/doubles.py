"""What stands in for the engine."""

from service.engine import EngineClient, EngineState
from service.errors import Unavailable


class EngineDouble:
    """An engine that is whatever a test sets."""

    def __init__(self) -> None:
        self.state = EngineState.READY
        self.generation = 1
        self.restarts = 0
        self.message = "ready"
        self.max_rank = 32
        self.max_model_length = 512
        self.supervised = True

    @property
    def client(self) -> EngineClient:
        raise Unavailable("ENGINE_DOWN", "there is no engine behind this double", retry_seconds=1)

    async def run(self) -> None:
        return None
