"""ChatService: passes turns to the chat and its deltas back. Models and templates are the chat's."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Protocol

from hotlora.v1 import chat_service_pb2 as pb
from hotlora.v1 import chat_service_pb2_grpc as pb_grpc
from service.rpc import conversion
from service.rpc.boundary import Context
from service.serving import Bases, ChatDelta, ChatTurn, Replica, ServedModel

MODEL_TRAILER = "hotlora-model"
"""Says which model answered."""


class Answering(Protocol):
    """The face of `service.serving.Chat`."""

    async def models(self) -> list[ServedModel]:
        """Everything that can be asked."""

    def replicas(self) -> list[Replica]:
        """The engines of the bases, as they stand."""

    def stream(self, turn: ChatTurn) -> AsyncGenerator[ChatDelta, None]:
        """Answer in pieces. Closing it frees the engine."""


class ChatServicer(pb_grpc.ChatServiceServicer):
    """See the proto."""

    def __init__(self, *, chat: Answering, bases: Bases) -> None:
        self._chat = chat
        self._bases = bases

    async def Chat(self, request: pb.ChatRequest, context: Context) -> AsyncIterator[pb.ChatResponse]:
        async with aclosing(self._chat.stream(conversion.chat_turn_of(request))) as deltas:
            async for delta in deltas:
                context.set_trailing_metadata(((MODEL_TRAILER, delta.model),))
                yield conversion.chat_message(delta)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        models = await self._chat.models()
        listed = {model.id for model in models}
        return pb.ListModelsResponse(
            models=map(conversion.model_message, models),
            engine=conversion.engine_message(self._bases.default.fleet),
            replicas=[conversion.replica_message(replica, listed) for replica in self._chat.replicas()],
        )
