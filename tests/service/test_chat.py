"""Chat resolves a model, checks what was asked, and passes the engine's answer on with its figures."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from service.engine import EngineState
from service.errors import Exhausted, InvalidRequest, NotFound, Unavailable, WrongState
from service.registry import AliasChangeKind, Share, VersionState, Wish
from service.serving import ChatDelta, ChatMessage, ChatTurn, FinishReason
from tests.doubles.engine import WORDS
from tests.service.serving_stage import MODEL, Stage, stage

HELLO = (ChatMessage(role="user", content="hello world"),)


async def _answer(on: Stage, turn: ChatTurn) -> list[ChatDelta]:
    async with aclosing(on.chat.stream(turn)) as deltas:
        return [delta async for delta in deltas]


async def _refusal(on: Stage, turn: ChatTurn) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refusal:
        await _answer(on, turn)
    return refusal.value


async def _versions(on: Stage, count: int) -> None:
    """So many ACTIVE versions of `support`."""
    for number in range(count):
        await on.outcome(await on.publish("support", b"weights %d" % number))


async def _split(on: Stage, percents: dict[int, int]) -> None:
    """Point the plain name of `support` at versions."""
    await on.registry.aliases.point(
        Wish(adapter_id="support", alias_id="default"),
        [Share(version=version, percent=percent) for version, percent in percents.items()],
        kind=AliasChangeKind.SPLIT,
        is_gated=None,
        is_forced=False,
    )


async def _model_of(on: Stage, turn: ChatTurn) -> str:
    """Which version answers."""
    (model,) = {delta.model for delta in await _answer(on, turn)}
    return model


@pytest.mark.parametrize("model", ["", MODEL.name])
async def test_the_base_answers_by_its_name_and_by_default(tmp_path: Path, model: str) -> None:
    async with stage(tmp_path) as on:
        deltas = await _answer(on, ChatTurn(model=model, messages=HELLO))

        assert "".join(delta.text for delta in deltas) == "".join(WORDS[:5])
        assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
        last = deltas[-1]
        assert last.finish_reason is FinishReason.STOP
        assert (last.model, last.completion_tokens) == (MODEL.name, 5)
        assert last.prompt_tokens > 0
        assert 0 < last.time_to_first_token_seconds <= last.elapsed_seconds


async def test_an_adapter_answers_by_its_name_with_its_newest_active_version(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        await on.outcome(await on.publish("support", b"one"))
        await on.outcome(await on.publish("support", b"two"))

        newest = await _answer(on, ChatTurn(model="support", messages=HELLO))
        exact = await _answer(on, ChatTurn(model="support@1", messages=HELLO))

        assert {delta.model for delta in newest} == {"support@2"}
        assert {delta.model for delta in exact} == {"support@1"}


async def test_an_answer_ends_on_the_version_that_it_began_with_and_the_next_is_the_promoted_ones(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as on:
        await _versions(on, 2)
        await _split(on, {1: 100})
        on.double.hold = held = asyncio.Event()
        async with aclosing(on.chat.stream(ChatTurn(model="support", messages=HELLO))) as deltas:
            began = await anext(deltas)
            await _split(on, {2: 100})
            on.double.hold = None
            held.set()
            models = {began.model, *[delta.model async for delta in deltas]}

        assert models == {"support@1"}
        assert await _model_of(on, ChatTurn(model="support", messages=HELLO)) == "support@2"


async def test_of_a_split_a_key_or_else_a_conversation_stays_with_one_version(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        await _versions(on, 2)
        await _split(on, {1: 50, 2: 50})
        later = (
            ChatMessage(role="assistant", content="good day"),
            ChatMessage(role="user", content="and now?"),
        )
        by_key, by_conversation = set(), set()
        for number in range(12):
            key, opening = str(number), (ChatMessage(role="user", content=f"hello {number}"),)
            whole = (*opening, *later)
            for found, same in (
                (by_key, [ChatTurn(model="support", messages=m, sticky_key=key) for m in (HELLO, whole)]),
                (by_conversation, [ChatTurn(model="support", messages=m) for m in (opening, whole)]),
            ):
                (model,) = {await _model_of(on, turn) for turn in same}
                found.add(model)

        assert by_key == by_conversation == {"support@1", "support@2"}


async def test_an_unknown_model_is_not_found_and_one_that_is_not_active_says_its_state(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as on:
        on.double.faults.as_base = {"support@1"}
        await on.outcome(await on.publish("support", b"one"))

        with pytest.raises(NotFound):
            await _answer(on, ChatTurn(model="nobody", messages=HELLO))
        with pytest.raises(WrongState, match="FAILED"):
            await _answer(on, ChatTurn(model="support@1", messages=HELLO))


async def test_an_active_version_does_not_answer_until_it_is_proven_on_the_new_engine(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        row = await on.outcome(await on.publish("support", b"one"))
        on.double.faults.stalled_loads = {row.model}
        await on.engine.restart()

        with pytest.raises(Unavailable) as refusal:
            await _answer(on, ChatTurn(model="support", messages=HELLO))
        assert refusal.value.reason == "BEING_PROVEN"
        assert refusal.value.retry_seconds > 0
        assert (await _answer(on, ChatTurn(messages=HELLO)))[-1].finish_reason is FinishReason.STOP


async def test_an_engine_that_is_down_is_unavailable_with_its_message(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.engine.state = EngineState.DOWN
        with pytest.raises(Unavailable, match="a double"):
            await _answer(on, ChatTurn(messages=HELLO))
        on.engine.state = EngineState.READY


async def test_an_answer_that_the_engine_cuts_short_is_never_an_ending(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.double.faults.error_event_at = 3
        deltas = []
        with pytest.raises(Unavailable):
            async for delta in on.chat.stream(ChatTurn(messages=HELLO)):
                deltas.append(delta)  # noqa: PERF401 - what came before the error counts

        assert all(delta.finish_reason is None for delta in deltas)


@pytest.mark.parametrize(
    ("roles", "field"),
    [
        ((), "messages"),
        (("assistant",), "messages[0].role"),
        (("user", "user"), "messages[1].role"),
        (("system",), "messages"),
        (("system", "assistant", "user"), "messages[1].role"),
        (("user", "system", "user"), "messages[1].role"),
        (("user", "assistant"), "messages"),
        (("tool",), "messages[0].role"),
    ],
)
async def test_messages_out_of_order_are_refused_by_place(
    tmp_path: Path, roles: tuple[str, ...], field: str
) -> None:
    async with stage(tmp_path) as on:
        messages = tuple(ChatMessage(role=role, content="hello") for role in roles)

        refusal = await _refusal(on, ChatTurn(messages=messages))

        assert [violation.field for violation in refusal.violations] == [field]


async def test_a_prompt_and_an_answer_beyond_the_context_are_refused_with_what_would_fit(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as on:
        long = (ChatMessage(role="user", content="hello " * 3000),)
        longest = (ChatMessage(role="user", content="x" * (2048 * 128 + 1)),)

        assert (await _refusal(on, ChatTurn(messages=long))).violations[0].field == "messages"
        assert (await _refusal(on, ChatTurn(messages=longest))).violations[0].field == "messages"
        too_much = await _refusal(on, ChatTurn(messages=HELLO, max_tokens=2048))
        assert too_much.violations[0].field == "max_tokens"
        room = int(too_much.message.split("up to ")[1].split()[0])
        deltas = await _answer(on, ChatTurn(messages=HELLO, max_tokens=room))
        assert deltas[-1].prompt_tokens + room == 2048


async def test_more_answers_than_allowed_at_once_are_refused(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.double.hold = asyncio.Event()
        streams = [on.chat.stream(ChatTurn(messages=HELLO)) for _ in range(4)]
        for stream in streams:
            await anext(stream)

        with pytest.raises(Exhausted):
            await _answer(on, ChatTurn(messages=HELLO))

        for stream in streams:
            await stream.aclose()
        on.double.hold = None
        assert (await _answer(on, ChatTurn(messages=HELLO)))[-1].finish_reason is FinishReason.STOP


async def test_closing_an_answer_frees_the_engine_and_the_count(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.double.hold = asyncio.Event()
        stream = on.chat.stream(ChatTurn(messages=HELLO))
        await anext(stream)
        assert (on.served.answers(MODEL.name), on.double.streams) == (1, 1)

        await stream.aclose()

        assert on.served.answers(MODEL.name) == 0
        async with asyncio.timeout(1):
            await on.double.stream_ended.wait()


async def test_an_answer_in_flight_ends_on_the_version_that_it_began_with(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        row = await on.outcome(await on.publish("support", b"one"))
        on.double.hold = asyncio.Event()
        stream = on.chat.stream(ChatTurn(model="support", messages=HELLO))
        first = await anext(stream)
        await on.registry.request_unload("support", 1)
        with pytest.raises(WrongState):
            await _answer(on, ChatTurn(model="support@1", messages=HELLO))
        on.double.hold.set()

        rest = [delta async for delta in stream]

        assert rest[-1].finish_reason is FinishReason.STOP
        assert {delta.model for delta in [first, *rest]} == {row.model}
        await on.outcome(row, {VersionState.RETIRED})


async def test_all_answers_to_what_was_prepared_are_one_versions_though_an_alias_moves(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as on:
        for weights in (b"one", b"two"):
            await on.outcome(await on.publish("support", weights))
        await _split(on, {1: 100})
        asked = await on.chat.prepare(ChatTurn(model="support", messages=HELLO, seed=2**31 - 1))
        await _split(on, {2: 100})
        with on.chat.hold(2) as hold:
            for index in range(2):
                deltas = [delta async for delta in on.chat.answer(asked.seeded(index), hold)]
                assert {delta.model for delta in deltas} == {"support@1"}
        assert [asked.seeded(index).sampling.seed for index in range(3)] == [2**31 - 1, 0, 1]


async def test_models_list_the_base_first_and_versions_newest_first_with_their_states(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.double.faults.as_base = {"silent@1"}
        for adapter, weights in (("support", b"one"), ("support", b"two"), ("silent", b"x"), ("gone", b"y")):
            await on.outcome(await on.publish(adapter, weights))
        gone = await on.row((await on.registry.list_versions("gone")).rows[0])
        await on.registry.delete_adapter("gone")
        await on.outcome(gone, {VersionState.RETIRED})

        models = await on.chat.models()

        assert [(model.id, model.available) for model in models] == [
            (MODEL.name, True),
            ("silent@1", False),
            ("support@2", True),
            ("support@1", True),
        ]
        on.engine.state = EngineState.DOWN
        assert not any(model.available for model in await on.chat.models())
        on.engine.state = EngineState.READY
