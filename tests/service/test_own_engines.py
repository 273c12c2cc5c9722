"""Whole models: proven on an engine of their own, asleep until somebody asks, stopped when idle."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import Unavailable, WrongState
from service.registry import VersionState
from service.serving import ChatMessage, ChatTurn, Serving
from tests.service.own_engines_stage import GIB, own_stage, publish_whole
from tests.service.registry_stage import until
from tests.service.serving_stage import MODEL, Stage, register, write_artifact, write_model
from trainer.config import Technique

HELLO = (ChatMessage(role="user", content="hello world"),)


async def _serving(on: Stage, model: str) -> Serving:
    return next(found.serving for found in await on.chat.models() if found.id == model)


async def _soon(on: Stage, reached: Callable[[], bool]) -> None:
    async def look() -> bool:
        return reached()

    await until(on.changes, "polled", look)


async def test_a_whole_model_is_proven_on_an_engine_of_its_own_and_answers_beside_the_base(
    tmp_path: Path,
) -> None:
    async with own_stage(tmp_path) as (on, row):
        version = await on.outcome(await publish_whole(on, "whole", b"w"))

        assert version.state == VersionState.ACTIVE
        assert version.verification is not None
        assert version.verification.adapter_difference <= version.verification.tolerance
        assert on.double.adapters == {}
        assert on.double.calls["/v1/load_lora_adapter"] == 0
        assert (await on.answer("whole"))[-1].model == "whole@1"
        assert row.engines[0].double.streams == 0
        models = {model.id: model for model in await on.chat.models()}
        assert (models["whole@1"].serving, models["whole@1"].max_model_length) == (Serving.READY, 1000)


async def test_each_bad_one_fails_with_its_own_reason_and_its_engine_is_gone(tmp_path: Path) -> None:
    async with own_stage(tmp_path) as (on, row):
        flipped = write_model(on.artifacts_dir, b"flipped")
        (on.artifacts_dir / flipped / "model.safetensors").write_bytes(b"flippee")
        digests = {
            "swapped": (write_model(on.artifacts_dir, b"s", canary_weights=b"t"), "WRONG_WEIGHTS"),
            "flipped": (flipped, "CORRUPT"),
            "adapter": (write_artifact(on.artifacts_dir, b"a"), "CORRUPT"),
            "claimed": (write_model(on.artifacts_dir, b"c", technique="lora"), "CORRUPT"),
        }
        versions = {
            name: await register(on.registry, digest, adapter_id=name, rank=0, technique=Technique.FULL)
            for name, (digest, _) in digests.items()
        }

        found = {name: (await on.outcome(version)).failure_reason for name, version in versions.items()}

        assert found == {name: reason for name, (_, reason) in digests.items()}
        await _soon(on, lambda: not row.running)


async def test_an_idle_one_sleeps_and_the_first_request_wakes_it(tmp_path: Path) -> None:
    async with own_stage(tmp_path, own_engine_idle_seconds=600) as (on, row):
        await on.outcome(await publish_whole(on, "whole", b"w"))
        row.now += 601
        await _soon(on, lambda: not row.running)
        assert await _serving(on, "whole@1") is Serving.ASLEEP

        answer = await on.answer("whole")

        assert answer[-1].model == "whole@1"
        assert len(row.engines) == 2
        assert row.engines[1].double.calls["/v1/completions"] >= 3  # the proof, and then the answer


async def test_an_answer_keeps_it_awake(tmp_path: Path) -> None:
    async with own_stage(tmp_path, own_engine_idle_seconds=600) as (on, row):
        await on.outcome(await publish_whole(on, "whole", b"w"))
        row.engines[0].double.hold = asyncio.Event()
        stream = on.chat.stream(ChatTurn(model="whole", messages=HELLO))
        await anext(stream)
        row.now += 1000
        await on.changes.wait("polled", 0, 0.2)
        row.engines[0].double.hold.set()

        assert [delta async for delta in stream][-1].finish_reason is not None
        assert len(row.engines) == 1
        assert await _serving(on, "whole@1") is Serving.READY


async def test_a_request_that_may_not_wait_is_told_to_come_again_and_starts_it(tmp_path: Path) -> None:
    async with own_stage(tmp_path, own_engine_wait_seconds=0) as (on, row):
        await on.outcome(await publish_whole(on, "whole", b"w"))
        row.now += 601
        await _soon(on, lambda: not row.running)
        row.may_start.clear()

        with pytest.raises(Unavailable) as refusal:
            await on.answer("whole")

        assert (refusal.value.reason, refusal.value.retry_seconds) == ("MODEL_STARTING", 10)
        await _soon(on, lambda: bool(row.running))
        assert await _serving(on, "whole@1") is Serving.STARTING
        row.may_start.set()
        await _soon(on, lambda: on.served.holds("whole@1"))
        assert (await on.answer("whole"))[-1].model == "whole@1"


async def test_a_model_that_is_asked_gets_the_place_of_one_that_idles(tmp_path: Path) -> None:
    async with own_stage(tmp_path, own_engines=1) as (on, row):
        await on.outcome(await publish_whole(on, "first", b"1"))
        row.now += 20
        await on.outcome(await publish_whole(on, "second", b"2"))
        assert row.running == ["second@1"]
        row.now += 20

        assert (await on.answer("first"))[-1].model == "first@1"

        assert row.running == ["first@1"]
        assert await _serving(on, "second@1") is Serving.ASLEEP


async def test_after_its_engine_died_it_is_proven_again_before_it_answers(tmp_path: Path) -> None:
    async with own_stage(tmp_path) as (on, row):
        await on.outcome(await publish_whole(on, "whole", b"w"))
        engine = row.engines[0]
        asked = engine.double.calls["/v1/completions"]
        (before,) = [each for each in on.chat.standings() if each.name == "whole@1"]
        await engine.restart()
        assert not on.served.holds("whole@1")

        await _soon(on, lambda: on.served.holds("whole@1"))

        (after,) = [each for each in on.chat.standings() if each.name == "whole@1"]
        assert (before.base_model, before.is_ready, before.restarts) == (MODEL.name, True, 0)
        assert (after.is_ready, after.restarts) == (True, 1)
        assert engine.double.calls["/v1/completions"] == asked + 2
        assert len(row.engines) == 1


async def test_while_memory_is_short_a_proof_waits_and_then_fails_with_the_figures(tmp_path: Path) -> None:
    async with own_stage(tmp_path) as (on, row):
        row.available = 2 * GIB
        version = await publish_whole(on, "whole", b"w")
        await on.changes.wait("polled", 0, 0.2)
        assert (await on.row(version)).state == VersionState.PENDING
        row.now += 1

        version = await on.outcome(version)

        assert version.failure_reason == "LOAD_REFUSED"
        assert "needs 3.0 GiB" in str(version.failure_message)
        assert "2.0 GiB are available" in str(version.failure_message)
        assert row.engines == []


async def test_a_sleeping_one_that_would_not_fit_says_so_and_stays_active(tmp_path: Path) -> None:
    async with own_stage(tmp_path) as (on, row):
        version = await on.outcome(await publish_whole(on, "whole", b"w"))
        row.now += 601
        await _soon(on, lambda: not row.running)
        row.available = GIB

        with pytest.raises(Unavailable, match=r"3\.0 GiB"):
            await on.answer("whole")

        assert (await on.row(version)).state == VersionState.ACTIVE


async def test_one_whose_engine_does_not_start_fails_with_the_engines_words(tmp_path: Path) -> None:
    async with own_stage(tmp_path) as (on, row):
        row.fails_to_start = True
        version = await on.outcome(await publish_whole(on, "whole", b"w"))

        assert version.failure_reason == "LOAD_REFUSED"
        assert "a double of its own" in str(version.failure_message)


async def test_where_no_own_engines_are_allowed_it_fails_by_the_settings_name(tmp_path: Path) -> None:
    async with own_stage(tmp_path, own_engines=0) as (on, _):
        version = await on.outcome(await publish_whole(on, "whole", b"w"))

        assert version.failure_reason == "LOAD_REFUSED"
        assert "HOTLORA_OWN_ENGINES" in str(version.failure_message)


async def test_unloading_ends_its_engine_and_loading_proves_it_again(tmp_path: Path) -> None:
    async with own_stage(tmp_path) as (on, row):
        version = await on.outcome(await publish_whole(on, "whole", b"w"))
        await on.registry.request_unload("whole", 1)
        await on.outcome(version, {VersionState.RETIRED})
        assert row.running == []
        with pytest.raises(WrongState):
            await on.answer("whole")

        await on.registry.request_load("whole", 1)
        await on.outcome(version, {VersionState.ACTIVE})
        assert (await on.answer("whole"))[-1].model == "whole@1"


async def test_deleting_it_ends_its_engine_and_removes_its_files(tmp_path: Path) -> None:
    async with own_stage(tmp_path) as (on, row):
        version = await on.outcome(await publish_whole(on, "whole", b"w"))
        await on.registry.delete_adapter("whole")
        await on.outcome(version, {VersionState.RETIRED})

        assert row.running == []
        await _soon(on, lambda: not (on.artifacts_dir / version.digest).exists())


async def test_ending_the_service_ends_every_own_engine(tmp_path: Path) -> None:
    async with own_stage(tmp_path) as (on, row):
        await on.outcome(await publish_whole(on, "whole", b"w"))
        assert row.running == ["whole@1"]

    assert row.running == []
