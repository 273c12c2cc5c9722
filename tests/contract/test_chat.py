"""ChatService, over the wire. Answers themselves are tested where the chat is."""

import grpc

from hotlora.v1 import adapter_service_pb2 as adapters_pb
from hotlora.v1 import chat_service_pb2 as pb
from hotlora.v1 import resources_pb2 as resources_pb
from service.engine import EngineState
from service.serving import ChatMessage, ChatTurn, ServedModel, Serving
from tests.contract.stage import BASE, Stage
from tests.contract.test_adapters import a_version

HELLO = resources_pb.Message(role="user", content="Hi")


async def test_an_answer_comes_in_deltas_and_ends_with_reason_and_counts(stage: Stage) -> None:
    call = stage.chat.Chat(pb.ChatRequest(messages=[HELLO]))
    first, second, last = [response async for response in call]
    assert first == pb.ChatResponse(
        delta="Hel",
        model="support@1",
        completion_tokens=1,
        time_to_first_token_seconds=0.25,
        elapsed_seconds=1.25,
    )
    assert (second.delta, second.finish_reason) == ("lo", pb.FINISH_REASON_UNSPECIFIED)
    assert (last.finish_reason, last.prompt_tokens, last.completion_tokens) == (pb.FINISH_REASON_STOP, 7, 2)
    assert await call.code() is grpc.StatusCode.OK


async def test_what_is_not_set_takes_its_default(stage: Stage) -> None:
    await stage.chat.Chat(pb.ChatRequest(messages=[HELLO])).read()
    assert stage.answers.turns == [
        ChatTurn(
            model="",
            messages=(ChatMessage(role="user", content="Hi"),),
            max_tokens=None,
            temperature=0.0,
            top_p=1.0,
            seed=None,
            stop=(),
        )
    ]


async def test_what_is_set_arrives(stage: Stage) -> None:
    request = pb.ChatRequest(
        model="support@1", messages=[HELLO], max_tokens=9, temperature=0.5, top_p=0.25, seed=0, stop=["END"]
    )
    await stage.chat.Chat(request).read()
    assert stage.answers.turns == [
        ChatTurn(
            model="support@1",
            messages=(ChatMessage(role="user", content="Hi"),),
            max_tokens=9,
            temperature=0.5,
            top_p=0.25,
            seed=0,
            stop=("END",),
        )
    ]


async def test_models_are_listed_with_their_states_and_the_engine_behind_them(stage: Stage) -> None:
    version = await a_version(stage)
    stage.engine.state, stage.engine.restarts, stage.engine.message = EngineState.STARTING, 3, "It restarts."
    stage.answers.listed = [
        ServedModel(id=BASE, base_model=BASE, version=None, serving=Serving.READY, max_model_length=512),
        ServedModel(
            id=version.model, base_model=BASE, version=version, serving=Serving.ASLEEP, max_model_length=512
        ),
    ]
    listed = await stage.chat.ListModels(pb.ListModelsRequest())
    base, adapter = listed.models
    assert (base.id, base.adapter_version, base.available) == (BASE, "", True)
    assert (base.serving, adapter.serving) == (pb.Model.SERVING_READY, pb.Model.SERVING_ASLEEP)
    assert base.state == adapters_pb.AdapterVersion.STATE_UNSPECIFIED
    assert (adapter.id, adapter.adapter_version) == ("support@1", "adapters/support/versions/1")
    assert adapter.state == adapters_pb.AdapterVersion.STATE_PENDING
    assert not base.HasField("create_time")
    published = await stage.adapters.GetAdapterVersion(
        adapters_pb.GetAdapterVersionRequest(name=adapter.adapter_version)
    )
    assert adapter.create_time == published.create_time
    assert listed.engine == pb.Engine(
        state=pb.Engine.STATE_STARTING, restarts=3, message="It restarts.", max_rank=32
    )
