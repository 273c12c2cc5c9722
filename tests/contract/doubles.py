"""What stands in for the engine and the chat: faces that are whatever a test sets."""

from collections.abc import AsyncGenerator, Callable

from service.engine import Abilities, EngineClient, EngineState
from service.errors import Unavailable
from service.serving import ChatDelta, ChatTurn, FinishReason, ServedModel

Script = Callable[[ChatTurn], AsyncGenerator[ChatDelta, None]]


class EngineDouble:
    """An engine that is whatever a test sets."""

    def __init__(self) -> None:
        self.state = EngineState.READY
        self.generation = 1
        self.restarts = 0
        self.message = "The engine answers."
        self.max_rank = 32
        self.max_model_length = 512
        self.abilities = Abilities()
        self.supervised = True

    @property
    def client(self) -> EngineClient:
        raise Unavailable("ENGINE_DOWN", "there is no engine behind this double", retry_seconds=1)

    async def run(self) -> None:
        return None


def delta(text: str, count: int, finish_reason: FinishReason | None = None) -> ChatDelta:
    """A piece of an answer by `support@1`."""
    return ChatDelta(
        text=text,
        model="support@1",
        finish_reason=finish_reason,
        prompt_tokens=7,
        completion_tokens=count,
        time_to_first_token_seconds=0.25,
        elapsed_seconds=0.25 + count,
    )


async def hello(turn: ChatTurn) -> AsyncGenerator[ChatDelta, None]:
    """A short answer."""
    yield delta("Hel", 1)
    yield delta("lo", 2)
    yield delta("", 2, FinishReason.STOP)


class ChatDouble:
    """A chat that answers with what a test sets, and keeps what it was asked."""

    def __init__(self) -> None:
        self.script: Script = hello
        self.listed: list[ServedModel] | Exception = []
        self.turns: list[ChatTurn] = []

    async def models(self) -> list[ServedModel]:
        if isinstance(self.listed, Exception):
            raise self.listed
        return self.listed

    def stream(self, turn: ChatTurn) -> AsyncGenerator[ChatDelta, None]:
        self.turns.append(turn)
        return self.script(turn)
