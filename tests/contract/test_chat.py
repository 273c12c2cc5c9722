"""ChatService, over the wire. Answers themselves are tested where the chat is."""

import asyncio
from collections.abc import Mapping

import grpc
import pytest

from hotlora.v1 import adapter_service_pb2 as adapters_pb
from hotlora.v1 import chat_service_pb2 as pb
from hotlora.v1 import resources_pb2 as resources_pb
from tests.contract.stage import BASE, ENGINE_MAX_RANK, Stage
from tests.contract.test_adapters import a_version, proven
from trainer.config import Technique

HELLO = resources_pb.Message(role="user", content="Hi")
PROMPT = b"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
PROMPT_TOKENS = len(PROMPT) - 2 * len("<|im_start|>") - len("<|im_end|>") + 3
"""A token each byte, and one each mark of a turn."""


def asked(stage: Stage) -> list[Mapping[str, object]]:
    """What the engine is asked from now on."""
    requests: list[Mapping[str, object]] = []

    def respond(fields: Mapping[str, object]) -> tuple[str, ...]:
        requests.append(fields)
        return ("Hel", "lo")

    stage.engine.respond = respond
    return requests


async def test_an_answer_comes_in_deltas_and_ends_with_reason_and_counts(stage: Stage) -> None:
    asked(stage)
    stage.engine.hold = held = asyncio.Event()
    call = stage.chat.Chat(pb.ChatRequest(messages=[HELLO]))
    answer = aiter(call)
    first = await anext(answer)
    held.set()
    rest = [response async for response in answer]

    assert (first.delta, first.model, first.completion_tokens) == ("Hel", BASE, 1)
    assert first.finish_reason == pb.FINISH_REASON_UNSPECIFIED
    assert 0 < first.time_to_first_token_seconds == first.elapsed_seconds
    assert "".join(response.delta for response in rest) == "lo"
    last = rest[-1]
    assert last.finish_reason == pb.FINISH_REASON_STOP
    assert (last.prompt_tokens, last.completion_tokens) == (PROMPT_TOKENS, 2)
    assert last.time_to_first_token_seconds == first.time_to_first_token_seconds < last.elapsed_seconds
    assert await call.code() is grpc.StatusCode.OK
    assert dict(await call.trailing_metadata())["hotlora-model"] == BASE


async def test_an_answer_that_breaks_off_names_its_model_too(stage: Stage) -> None:
    stage.engine.faults.error_event_at = 1
    stage.engine.hold = held = asyncio.Event()
    call = stage.chat.Chat(pb.ChatRequest(messages=[HELLO]))
    assert isinstance(await call.read(), pb.ChatResponse)
    held.set()
    with pytest.raises(grpc.aio.AioRpcError) as broken:
        await call.read()
    assert broken.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(await call.trailing_metadata())["hotlora-model"] == BASE


async def test_what_is_not_set_takes_its_default(stage: Stage) -> None:
    requests = asked(stage)
    await stage.chat.Chat(pb.ChatRequest(messages=[HELLO])).read()

    (request,) = requests
    assert (request["model"], request["temperature"], request["top_p"]) == (BASE, 0.0, 1.0)
    assert request["max_tokens"] == 256
    assert "seed" not in request
    assert "stop" not in request


async def test_what_is_set_arrives(stage: Stage) -> None:
    requests = asked(stage)
    request = pb.ChatRequest(
        model=BASE, messages=[HELLO], max_tokens=9, temperature=0.5, top_p=0.25, seed=0, stop=["END"]
    )
    await stage.chat.Chat(request).read()

    expected = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.25, "seed": 0, "stop": ["END"]}
    assert {name: requests[0][name] for name in expected} == expected


async def test_models_are_listed_with_their_states_and_the_engine_behind_them(stage: Stage) -> None:
    await a_version(stage)
    await proven(stage, await a_version(stage, technique=Technique.FULL))
    listed = await stage.chat.ListModels(pb.ListModelsRequest())
    base, whole, adapter = listed.models
    assert (base.id, base.adapter_version, base.available) == (BASE, "", True)
    assert base.serving == pb.Model.SERVING_READY
    assert base.state == adapters_pb.AdapterVersion.STATE_UNSPECIFIED
    assert (whole.id, whole.serving) == ("support@2", pb.Model.SERVING_ASLEEP)
    assert (adapter.id, adapter.adapter_version) == ("support@1", "adapters/support/versions/1")
    assert (adapter.serving, adapter.available) == (pb.Model.SERVING_STARTING, False)
    assert adapter.state == adapters_pb.AdapterVersion.STATE_PENDING
    assert not base.HasField("create_time")
    published = await stage.adapters.GetAdapterVersion(
        adapters_pb.GetAdapterVersionRequest(name=adapter.adapter_version)
    )
    assert adapter.create_time == published.create_time
    assert listed.engine == pb.Engine(
        state=pb.Engine.STATE_READY,
        message=f"the engine at {stage.engine.url} is ready",
        max_rank=ENGINE_MAX_RANK,
    )
    assert list(listed.replicas) == [
        pb.Replica(
            name=stage.engine.url,
            base_model=BASE,
            state=pb.Engine.STATE_READY,
            message=f"the engine at {stage.engine.url} is ready",
            generation=1,
            adapter_slots=4,
        )
    ]
