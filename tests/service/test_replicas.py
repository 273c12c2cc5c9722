"""Several engines of one base: each is brought to the desired set, answers go to the one with the least to
do, and what is wrong with one takes nothing from the others."""

import asyncio
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest

from service.engine import EngineState
from service.errors import Unavailable
from service.registry import VersionRow, VersionState
from service.serving import ChatMessage, ChatTurn, FinishReason
from tests.doubles.engine import EngineDouble
from tests.service.serving_stage import MODEL, Stage, register, stage, write_prompt
from trainer.config import Technique

HELLO = (ChatMessage(role="user", content="hello world"),)


async def _served_by_both(on: Stage, name: str = "support") -> VersionRow:
    row = await on.outcome(await on.publish(name, name.encode()))
    await on.is_served_by(*on.engines, row=row)
    return row


def _answering(on: Stage) -> EngineDouble:
    """The one double that is giving an answer."""
    (double,) = [engine.double for engine in on.engines if engine.double.streams]
    return double


async def test_every_replica_gets_and_proves_every_version(tmp_path: Path) -> None:
    async with stage(tmp_path, replicas=2) as on:
        adapters = [await _served_by_both(on, f"a{number}") for number in range(3)]
        digest = write_prompt(on.artifacts_dir, 1)
        prompt = await register(on.registry, digest, technique=Technique.PROMPT_TUNING, rank=0)
        prompt = await on.outcome(prompt)
        await on.is_served_by(*on.engines, row=prompt)

        for engine in on.engines:
            assert sorted(engine.double.adapters) == [row.model for row in adapters]
        told = {replica.name: replica.models for replica in on.chat.replicas()}
        assert told == dict.fromkeys(("double-1", "double-2"), ("a0@1", "a1@1", "a2@1", "support@1"))


async def test_a_version_that_one_replica_rejects_is_served_by_the_other_and_unloaded_from_the_one(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, replicas=2) as on:
        bad, good = on.engines
        bad.double.faults.as_base = {"support@1"}
        row = await on.outcome(await on.publish("support", b"good"))
        await on.soon(lambda: bad.double.calls["/v1/unload_lora_adapter"] == 1)

        assert row.state == VersionState.ACTIVE
        await on.is_served_by(good, row=row)
        assert row.model not in bad.double.adapters
        refused = {replica.name: replica.refusals for replica in on.chat.replicas()}
        assert refused[good.name] == {}
        assert refused[bad.name][row.model].reason == "NO_EFFECT"
        assert {delta.model for _ in range(4) for delta in await on.answer("support")} == {row.model}
        assert (await on.row(row)).state == VersionState.ACTIVE
        assert bad.double.calls["/v1/load_lora_adapter"] == 1


async def test_a_rejected_version_gets_another_chance_on_a_new_engine(tmp_path: Path) -> None:
    async with stage(tmp_path, replicas=2) as on:
        bad, _ = on.engines
        bad.double.faults.refused_loads = {"support@1"}
        row = await on.outcome(await on.publish("support", b"good"))
        await on.soon(lambda: bad.double.calls["/v1/load_lora_adapter"] == 1)
        bad.double.faults.refused_loads = set()

        await bad.restart()

        await on.is_served_by(*on.engines, row=row)


async def test_a_version_that_every_replica_rejects_has_failed_and_is_tried_on_all_when_it_is_asked_for_again(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, replicas=2) as on:
        for engine in on.engines:
            engine.double.faults.as_base = {"support@1"}
        row = await on.outcome(await on.publish("support", b"good"))

        assert (row.state, row.failure_reason) == (VersionState.FAILED, "NO_EFFECT")
        assert row.verification is not None
        for engine in on.engines:
            engine.double.faults.as_base = set()
        await on.registry.request_load("support", 1)
        await on.is_served_by(*on.engines, row=row)


async def test_a_later_rejection_on_one_replica_takes_an_active_version_from_that_one_alone(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, replicas=2) as on:
        first = await _served_by_both(on, "first")
        on.engine.double.faults.swapped = {"first@1": "second@1"}
        await _served_by_both(on, "second")

        await on.is_served_by(on.engines[1], row=first)

        assert (await on.row(first)).state == VersionState.ACTIVE


async def test_a_version_stays_active_while_the_only_replica_that_serves_it_restarts(tmp_path: Path) -> None:
    async with stage(tmp_path, replicas=2) as on:
        bad, good = on.engines
        bad.double.faults.as_base = {"support@1"}
        row = await on.outcome(await on.publish("support", b"good"))
        await on.soon(lambda: bad.double.calls["/v1/unload_lora_adapter"] == 1)
        await good.go()
        looks = bad.double.calls["/v1/models"]
        await on.soon(lambda: bad.double.calls["/v1/models"] > looks + 2)
        with pytest.raises(Unavailable, match="proven again"):
            await on.answer("support@1")

        await good.come_back()

        await on.is_served_by(good, row=row)
        assert (await on.row(row)).state == VersionState.ACTIVE


async def test_a_hung_replica_delays_no_activation_and_no_answer_of_the_other(tmp_path: Path) -> None:
    async with stage(tmp_path, replicas=2) as on:
        hung, well = on.engines
        hung.double.faults.hanging = True

        rows = [await on.outcome(await on.publish(f"a{number}", b"w%d" % number)) for number in range(3)]

        assert {row.state for row in rows} == {VersionState.ACTIVE}
        for row in rows:
            await on.is_served_by(well, row=row)
            assert (await on.answer(row.model))[-1].finish_reason is FinishReason.STOP
        hung.double.faults.hanging = False
        await hung.restart()
        await on.is_served_by(*on.engines, row=rows[0])


async def test_an_adapter_that_kills_one_replica_is_quarantined_there_and_served_by_the_other(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, replicas=2) as on:
        frail, strong = on.engines
        frail.double.faults.dies_at_load = {"support@1"}

        row = await on.outcome(await on.publish("support", b"good"))
        await on.soon(lambda: frail.generation == 3)
        await frail.restart()
        other = await _served_by_both(on, "other")

        assert frail.double.calls["/v1/load_lora_adapter"] == 3  # twice this one, once the other
        assert (row.state, other.state) == (VersionState.ACTIVE, VersionState.ACTIVE)
        await on.is_served_by(strong, row=row)


async def test_a_replica_that_dies_unseen_between_requests_fails_none_of_them(tmp_path: Path) -> None:
    async with stage(tmp_path, replicas=2) as on:
        row = await _served_by_both(on)
        on.engine.double.dead = True

        answers = [await on.answer(model) for _ in range(8) for model in ("", "support")]

        assert {answer[-1].finish_reason for answer in answers} == {FinishReason.STOP}
        assert set(on.served.engines(row.model)) == set(on.engines)  # nobody noticed


@pytest.mark.parametrize("fault", ["cut", "lost", "refused"])
async def test_an_answer_that_fails_before_its_first_token_comes_from_the_other_replica(
    tmp_path: Path, fault: str
) -> None:
    async with stage(tmp_path, replicas=2) as on:
        row = await _served_by_both(on)
        ill = on.engine.double
        match fault:
            case "cut":
                ill.faults.cut_stream_at = 10
            case "lost":
                ill.adapters.clear()
            case "refused":
                ill.faults.bad_gateways = {"/v1/completions"}

        for _ in range(6):
            answer = await on.answer(row.model)
            assert "".join(delta.text for delta in answer) == "all is well with this "


async def test_an_answer_that_waits_for_a_replica_that_is_seen_to_hang_comes_from_the_other(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, replicas=2) as on:
        hung, well = on.engines
        hung.double.stalled_completions = True
        with on.served.answering(well, MODEL.name):
            waiting = asyncio.create_task(on.answer())
            await on.soon(lambda: on.served.answers_on(hung) == 1)
        hung.state = EngineState.DOWN
        on.changes.notify("engine")

        answer = await waiting

        assert answer[-1].finish_reason is FinishReason.STOP
        assert on.served.answers_on(hung) == 0


async def test_an_answer_wakes_nobody_who_waits_for_versions(tmp_path: Path) -> None:
    """They read the registry then: between two answers of an idle service, more than the answer costs."""
    async with stage(tmp_path) as on:
        row = await on.outcome(await on.publish("support", b"good"))
        await on.is_served_by(on.engine, row=row)
        seen = on.changes.seen("versions")

        for model in ("", row.model):
            await on.answer(model)

        assert on.changes.seen("versions") == seen


async def test_a_request_that_an_engine_refuses_for_what_it_is_goes_to_no_other(tmp_path: Path) -> None:
    async with stage(tmp_path, replicas=2) as on:
        digest = write_prompt(on.artifacts_dir, 1)
        row = await register(on.registry, digest, technique=Technique.PROMPT_TUNING, rank=0)
        await on.outcome(row)
        await on.is_served_by(*on.engines, row=row)
        for engine in on.engines:
            engine.double.faults.without_prompt_embeds = True
        before = [engine.double.calls["/v1/completions"] for engine in on.engines]

        with pytest.raises(Exception, match="refuses this request"):
            await on.answer(row.model)

        after = [engine.double.calls["/v1/completions"] for engine in on.engines]
        assert sum(after) == sum(before) + 1


async def test_when_every_replica_fails_each_was_asked_once_and_the_caller_is_told(tmp_path: Path) -> None:
    async with stage(tmp_path, replicas=2) as on:
        for engine in on.engines:
            engine.double.faults.bad_gateways = {"/v1/completions"}
        before = [engine.double.calls["/v1/completions"] for engine in on.engines]

        with pytest.raises(Unavailable):
            await on.answer()

        after = [engine.double.calls["/v1/completions"] for engine in on.engines]
        assert after == [calls + 1 for calls in before]


async def test_a_request_that_two_replicas_died_of_is_given_to_no_third(tmp_path: Path) -> None:
    async with stage(tmp_path, replicas=3) as on:
        row = await on.outcome(await on.publish("support", b"good"))
        await on.is_served_by(*on.engines, row=row)
        for engine in on.engines:
            engine.double.faults.dies_at_answer = {row.model}

        with pytest.raises(Unavailable):
            await on.answer(row.model)

        await on.is_served_by(*on.engines, row=row)
        assert sorted(engine.generation for engine in on.engines) == [1, 2, 2]


async def test_an_answer_that_breaks_off_after_its_first_token_is_an_error_and_the_next_goes_elsewhere(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, replicas=2) as on:
        row = await _served_by_both(on)
        for engine in on.engines:
            engine.double.hold = asyncio.Event()
        async with aclosing(on.chat.stream(ChatTurn(model="support", messages=HELLO))) as deltas:
            assert (await anext(deltas)).text == "all "
            killed = _answering(on)
            survivor = next(engine.double for engine in on.engines if engine.double is not killed)
            killed.dead = True
            asked = survivor.calls["/v1/completions"]
            await killed.stop()
            with pytest.raises(Unavailable):
                await anext(deltas)
            assert survivor.calls["/v1/completions"] == asked
        survivor.hold = None

        answers = [await on.answer("support") for _ in range(3)]

        assert {answer[-1].finish_reason for answer in answers} == {FinishReason.STOP}
        assert {answer[-1].model for answer in answers} == {row.model}


async def test_answers_go_to_the_replica_with_the_least_to_do(tmp_path: Path) -> None:
    async with stage(tmp_path, replicas=2) as on, AsyncExitStack() as opened:
        busy, free = on.engines
        free.double.hold = asyncio.Event()
        with on.served.answering(busy, MODEL.name), on.served.answering(busy, MODEL.name):
            for _ in range(2):
                stream = on.chat.stream(ChatTurn(messages=HELLO))
                await opened.enter_async_context(aclosing(stream))
                await anext(stream)

            assert (free.double.streams, busy.double.streams) == (2, 0)


async def test_of_replicas_only_those_that_have_a_version_proven_answer_for_it(tmp_path: Path) -> None:
    async with stage(tmp_path, replicas=3) as on:
        for engine in on.engines[:2]:
            engine.double.faults.stalled_loads = {"support@1"}
        await on.outcome(await on.publish("support", b"good"))
        has = on.engines[2].double
        before = {engine.name: engine.double.calls["/v1/completions"] for engine in on.engines}

        for _ in range(5):
            await on.answer("support")

        assert has.calls["/v1/completions"] == before["double-3"] + 5
        assert [engine.double.calls["/v1/completions"] for engine in on.engines[:2]] == [
            before["double-1"],
            before["double-2"],
        ]


async def test_a_replica_that_comes_back_is_brought_to_the_desired_set(tmp_path: Path) -> None:
    async with stage(tmp_path, replicas=2) as on:
        old = await _served_by_both(on, "old")
        back, _ = on.engines
        await back.go()
        await on.registry.request_unload("old", 1)
        assert (await on.outcome(old, {VersionState.RETIRED})).state == VersionState.RETIRED
        new = await on.outcome(await on.publish("new", b"new"))

        await back.come_back()
        await back.client.load_adapter(name=old.model, path=str(on.artifacts_dir / old.digest))

        await on.is_served_by(*on.engines, row=new)
        await on.soon(lambda: list(back.double.adapters) == [new.model])


async def test_a_retired_version_is_unloaded_from_every_replica_before_it_is_retired(tmp_path: Path) -> None:
    async with stage(tmp_path, replicas=2) as on:
        row = await _served_by_both(on)
        busy, idle = on.engines
        with on.served.answering(busy, row.model):
            await on.registry.request_unload("support", 1)
            await on.soon(lambda: row.model not in idle.double.adapters)
            looks = busy.double.calls["/v1/models"]
            await on.soon(lambda: busy.double.calls["/v1/models"] > looks + 2)
            assert row.model in busy.double.adapters
            assert (await on.row(row)).state == VersionState.RETIRING

        await on.outcome(row, {VersionState.RETIRED})

        assert [row.model in engine.double.adapters for engine in on.engines] == [False, False]


async def test_files_stay_until_every_engine_that_knew_them_is_gone(tmp_path: Path) -> None:
    async with stage(tmp_path, replicas=2) as on:
        row = await _served_by_both(on)
        files = on.artifacts_dir / row.digest
        await on.registry.delete_adapter("support")
        await on.outcome(row, {VersionState.RETIRED})
        first, second = on.engines
        await first.restart()
        looks = [engine.double.calls["/v1/models"] for engine in on.engines]
        for engine, seen in zip(on.engines, looks, strict=True):
            await on.soon(lambda engine=engine, seen=seen: engine.double.calls["/v1/models"] > seen + 2)
        assert files.is_dir()

        await second.restart()

        await on.soon(lambda: not files.exists())
