"""The reconciler brings versions into the engine, proves them there, and repairs what happens to it."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from service.engine.capacity import Capacity
from service.errors import Unavailable
from service.registry import Share, VersionState
from service.serving import ChatMessage, ChatTurn
from service.serving.reconciler import MAX_ATTEMPTS_WITHOUT_OUTCOME
from tests.service.serving_stage import MODEL, Stage, register, stage, write_artifact
from trainer.config import BaseModel


async def test_a_published_version_becomes_active_with_its_figures(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        row = await on.outcome(await on.publish("support", b"good"))

        assert row.state == VersionState.ACTIVE
        assert on.served.holds(row.model)
        assert row.verification is not None
        figures = row.verification
        assert figures.tokens == 36 + 19
        assert figures.adapter_difference <= figures.tolerance < figures.effect
        assert figures.noise == pytest.approx(0.003, rel=0.1)
        assert figures.trained_effect == pytest.approx(figures.effect, abs=0.01)
        changes = await on.registry.version_changes(row.adapter_id, row.number)
        assert [each.state.value for each in changes] == ["PENDING", "VERIFYING", "ACTIVE"]


async def test_each_bad_version_fails_with_its_own_reason_and_delays_no_other(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        artifacts = on.artifacts_dir
        flipped = write_artifact(artifacts, b"flipped")
        (artifacts / flipped / "adapter_model.safetensors").write_bytes(b"flippee")
        other_base = BaseModel(name=MODEL.name, path=MODEL.path, revision="sha256:other")
        on.double.faults.refused_loads = {"refused@1"}
        on.double.faults.as_base = {"silent@1"}
        on.double.faults.broken_weights = {"broken@1"}
        digests = {
            "flipped": (flipped, "CORRUPT"),
            "gone": ("0" * 64, "CORRUPT"),
            "big": (write_artifact(artifacts, b"big", rank=17), "RANK_TOO_HIGH"),
            "sly": (write_artifact(artifacts, b"sly", config_rank=17), "RANK_TOO_HIGH"),
            "foreign": (write_artifact(artifacts, b"foreign", base=other_base), "WRONG_BASE"),
            "misread": (write_artifact(artifacts, b"misread", template="{{ messages }}"), "WRONG_RENDERING"),
            "refused": (write_artifact(artifacts, b"refused"), "LOAD_REFUSED"),
            "silent": (write_artifact(artifacts, b"silent"), "NO_EFFECT"),
            "swapped": (write_artifact(artifacts, b"other", canary_weights=b"swapped"), "WRONG_WEIGHTS"),
            "broken": (write_artifact(artifacts, b"broken"), "WRONG_WEIGHTS"),
        }
        rows = {
            name: await register(on.registry, digest, adapter_id=name)
            for name, (digest, _) in digests.items()
        }
        good = await on.publish("good", b"good")

        found = {name: (await on.outcome(row)).failure_reason for name, row in rows.items()}

        assert found == {name: reason for name, (_, reason) in digests.items()}
        assert (await on.outcome(good)).state == VersionState.ACTIVE
        for name in rows:
            await on.unloaded(f"{name}@1")
        assert list(on.double.adapters) == [good.model]


async def test_what_can_be_seen_on_disk_is_never_loaded(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        digest = write_artifact(on.artifacts_dir, b"weights", rank=64)
        await on.outcome(await register(on.registry, digest))

        assert on.double.calls["/v1/load_lora_adapter"] == 0


async def test_after_an_engine_restart_every_active_version_is_proven_again_before_it_answers(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as on:
        rows = [await on.outcome(await on.publish(f"a{number}", b"w%d" % number)) for number in range(5)]
        before = on.double.calls["/v1/completions"]
        await on.engine.restart()
        assert not any(on.served.holds(row.model) for row in rows)

        for row in rows:
            await on.is_served(row)

        assert sorted(on.double.adapters) == [row.model for row in rows]
        assert on.double.calls["/v1/completions"] >= before + 10
        assert {(await on.row(row)).state for row in rows} == {VersionState.ACTIVE}


async def test_of_a_split_those_that_are_proven_answer_until_the_others_are_again(tmp_path: Path) -> None:
    async def answering(on: Stage) -> set[str]:
        models = set()
        for caller in range(20):
            turn = ChatTurn(
                model="support@prod",
                messages=(ChatMessage(role="user", content="hello world"),),
                sticky_key=str(caller),
            )
            async with aclosing(on.chat.stream(turn)) as deltas:
                models |= {delta.model async for delta in deltas}
        return models

    async with stage(tmp_path) as on:
        first, second = [
            await on.outcome(await on.publish("support", weights)) for weights in (b"one", b"two")
        ]
        await on.point("support", "prod", Share(version=1, percent=50), Share(version=2, percent=50))
        assert await answering(on) == {first.model, second.model}
        on.double.holds[second.model] = held = asyncio.Event()
        await on.engine.restart()
        await on.is_served(first)

        assert await answering(on) == {first.model}

        held.set()
        await on.is_served(second)
        assert await answering(on) == {first.model, second.model}


async def test_an_active_version_whose_files_rot_is_not_served_again(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        row = await on.outcome(await on.publish("support", b"good"))
        (on.artifacts_dir / row.digest / "adapter_model.safetensors").write_bytes(b"rot!")
        await on.engine.restart()

        row = await on.outcome(row, {VersionState.FAILED})

        assert row.failure_reason == "CORRUPT"
        assert not on.served.holds(row.model)


async def test_an_adapter_that_somebody_unloads_is_loaded_and_proven_again(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        row = await on.outcome(await on.publish("support", b"good"))
        loads = on.double.calls["/v1/load_lora_adapter"]
        del on.double.adapters[row.model]

        async with asyncio.timeout(10):
            while row.model not in on.double.adapters:
                await on.changes.wait("polled", 0, 0.02)

        await on.is_served(row)
        assert on.double.calls["/v1/load_lora_adapter"] == loads + 1


async def test_an_adapter_that_nobody_registered_is_unloaded_from_our_engine(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        await on.engine.client.load_adapter(
            name="stranger", path=str(on.artifacts_dir / write_artifact(on.artifacts_dir, b"stranger"))
        )

        await on.unloaded("stranger")


async def test_an_adapter_of_somebody_else_stays_in_an_attached_engine(tmp_path: Path) -> None:
    async with stage(tmp_path, supervised=False) as on:
        elsewhere = tmp_path / "elsewhere"
        theirs = str(elsewhere / write_artifact(elsewhere, b"theirs"))
        await on.engine.client.load_adapter(name="theirs", path=theirs)
        await on.outcome(await on.publish("support", b"good"))

        assert sorted(on.double.adapters) == ["support@1", "theirs"]


async def test_a_load_whose_answer_was_lost_is_found_done(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.double.faults.lost_answers = {"/v1/load_lora_adapter"}
        row = await on.outcome(await on.publish("support", b"good"))

        assert row.state == VersionState.ACTIVE
        assert on.double.calls["/v1/load_lora_adapter"] == 1


async def test_a_load_that_never_answers_ends_as_refused_and_delays_no_other(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.double.faults.stalled_loads = {"stuck@1"}
        stuck = await on.publish("stuck", b"stuck")
        good = await on.outcome(await on.publish("good", b"good"))

        assert good.state == VersionState.ACTIVE
        assert (await on.row(stuck)).state == VersionState.PENDING
        assert (await on.outcome(stuck)).failure_reason == "LOAD_REFUSED"


async def test_an_adapter_that_the_engine_dies_of_twice_is_quarantined_and_the_rest_come_back(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as on:
        first = await on.outcome(await on.publish("first", b"first"))
        on.double.faults.dies_at_load = {"killer@1"}
        killer = await on.publish("killer", b"killer")
        others = [await on.publish(f"other{number}", b"o%d" % number) for number in range(4)]

        killer = await on.outcome(killer)

        assert (killer.state, killer.failure_reason) == (VersionState.FAILED, "QUARANTINED")
        assert on.engine.generation == 3
        for row in [first, *others]:
            assert (await on.outcome(row, {VersionState.ACTIVE})).state == VersionState.ACTIVE
            await on.is_served(row)

        on.double.faults.dies_at_load = set()
        await on.registry.request_load("killer", 1)
        assert (await on.outcome(killer, {VersionState.ACTIVE})).state == VersionState.ACTIVE


async def _kill(on: Stage, *models: str) -> None:
    """Have the engine die while it answers as these, and wait for the next one."""
    generation = on.engine.generation
    on.double.faults.dies_at_answer = set(models)
    ends = await asyncio.gather(*(on.answer(model) for model in models), return_exceptions=True)
    assert all(isinstance(end, Unavailable) for end in ends), ends
    on.double.faults.dies_at_answer = set()
    await on.soon(lambda: on.engine.generation == generation + 1)


async def _kill_together(on: Stage, *models: str) -> None:
    """Have the engine die in the middle of one answer of each."""
    on.double.hold = asyncio.Event()
    asked = [asyncio.create_task(on.answer(model)) for model in models]
    await on.soon(lambda: on.double.streams == len(models))
    await on.engine.go()
    ends = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(end, Unavailable) for end in ends), ends
    on.double.hold = None
    await on.engine.come_back()


async def test_an_adapter_that_the_engine_dies_of_twice_while_answering_is_quarantined(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as on:
        other = await on.outcome(await on.publish("other", b"other"))
        killer = await on.outcome(await on.publish("killer", b"killer"))
        await _kill(on, killer.model)
        await on.is_served(killer)
        await _kill(on, killer.model)

        killer = await on.outcome(killer, {VersionState.FAILED})

        assert killer.failure_reason == "QUARANTINED"
        await on.is_served(other)
        await on.registry.request_load("killer", 1)
        assert (await on.outcome(killer, {VersionState.ACTIVE})).state == VersionState.ACTIVE


async def test_of_those_that_were_answering_the_one_that_was_at_every_death_is_quarantined(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as on:
        killer, first, second = [
            await on.outcome(await on.publish(name, name.encode())) for name in ("killer", "first", "second")
        ]
        await _kill_together(on, killer.model, first.model, MODEL.name)
        for row in (killer, first, second):
            await on.is_served(row)
        await _kill_together(on, killer.model, second.model)

        assert (await on.outcome(killer, {VersionState.FAILED})).failure_reason == "QUARANTINED"
        for row in (first, second):
            await on.is_served(row)


async def test_an_adapter_that_answers_well_between_two_deaths_or_has_the_same_company_is_not_to_blame(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as on:
        row = await on.outcome(await on.publish("support", b"good"))
        await _kill(on, row.model)
        await on.is_served(row)
        for _ in range(2):
            assert "".join(delta.text for delta in await on.answer(row.model))
            await _kill(on, row.model, MODEL.name)
            await on.is_served(row)

        await _kill(on, row.model, MODEL.name)
        await on.is_served(row)

        assert (await on.row(row)).state == VersionState.ACTIVE


async def test_a_version_that_an_attached_engine_dies_of_names_the_plugin_that_it_may_lack(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, supervised=False) as on:
        on.double.faults.dies_at_load = {"killer@1"}

        killer = await on.outcome(await on.publish("killer", b"killer"))

        assert killer.failure_reason == "QUARANTINED"
        assert "hotlora-vllm-cpu-lora" in str(killer.failure_message)


async def test_an_active_adapter_that_is_swapped_by_a_later_load_is_found_out(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        first = await on.outcome(await on.publish("first", b"first"))
        on.double.faults.swapped = {"first@1": "second@1"}
        second = await on.outcome(await on.publish("second", b"second"))

        assert second.state == VersionState.ACTIVE
        first = await on.outcome(first, {VersionState.FAILED})
        assert first.failure_reason == "WRONG_WEIGHTS"
        assert not on.served.holds(first.model)


async def test_of_more_adapters_than_fit_into_memory_only_those_in_it_are_looked_at_again(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, capacity=Capacity(slots=2, cached=3)) as on:
        rows = [await on.outcome(await on.publish(f"a{number}", b"w%d" % number)) for number in range(8)]

        def fresh() -> set[str]:
            found = on.served.proven(on.engine)
            return {model for model, proven in found.items() if proven.loads == len(rows)}

        await on.soon(lambda: len(fresh()) == 3)
        assert fresh() == {row.model for row in rows if on.engine.client.has_in_memory(row.model)}
        asked, looks = on.double.calls["/v1/completions"], on.double.calls["/v1/models"]
        await on.soon(lambda: on.double.calls["/v1/models"] > looks + 5)
        assert on.double.calls["/v1/completions"] == asked
        assert all(on.served.holds(row.model) for row in rows)

        evicted = [row.model for row in rows if row.model not in fresh()]
        await on.engine.client.prompt_logprobs(model=evicted[0], token_ids=(1, 2, 3))

        # It is in memory now, so it costs nobody's place to look whether it is itself.
        await on.soon(lambda: evicted[0] in fresh())
        assert not fresh() & set(evicted[1:])


@pytest.mark.parametrize("supervised", [True, False])
async def test_adapters_are_not_served_by_an_engine_that_gives_the_base_their_answers(
    tmp_path: Path, *, supervised: bool
) -> None:
    async with stage(tmp_path, supervised=supervised) as on:
        on.double.faults.mixing_slots = 2
        first = await on.outcome(await on.publish("first", b"first"))
        assert first.state == VersionState.ACTIVE  # the last slot is empty, so the base is still itself

        second = await on.outcome(await on.publish("second", b"second"))

        first = await on.outcome(first, {VersionState.FAILED})
        assert [first.failure_reason, second.failure_reason] == ["MIXED_UP", "MIXED_UP"]
        assert "hotlora-vllm-cpu-lora" in str(second.failure_message)
        assert on.served.proven(on.engine) == {}


async def test_an_unloaded_version_takes_no_new_answers_and_goes_when_the_running_ones_end(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as on:
        row = await on.outcome(await on.publish("support", b"good"))
        with on.served.answering(on.engine, row.model):
            await on.registry.request_unload("support", 1)
            async with asyncio.timeout(10):
                while on.served.holds(row.model):
                    await on.changes.wait("polled", 0, 0.02)
            assert (await on.row(row)).state == VersionState.RETIRING
            assert row.model in on.double.adapters

        row = await on.outcome(row, {VersionState.RETIRED})
        assert row.model not in on.double.adapters


async def test_a_retired_version_comes_back_on_request(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        row = await on.outcome(await on.publish("support", b"good"))
        await on.registry.request_unload("support", 1)
        await on.outcome(row, {VersionState.RETIRED})
        await on.registry.request_load("support", 1)

        await on.outcome(row, {VersionState.ACTIVE})
        assert on.served.holds(row.model)


async def test_files_of_a_deleted_adapter_stay_until_the_engine_that_knew_them_is_gone(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as on:
        kept = await on.outcome(await on.publish("kept", b"kept"))
        row = await on.outcome(await on.publish("support", b"good"))
        await on.registry.delete_adapter("support")
        await on.outcome(row, {VersionState.RETIRED})
        await on.outcome(await on.publish("later", b"later"))
        assert (on.artifacts_dir / row.digest).is_dir()

        await on.engine.restart()

        async with asyncio.timeout(10):
            while (on.artifacts_dir / row.digest).exists():
                await on.changes.wait("polled", 0, 0.02)
        assert (on.artifacts_dir / kept.digest).is_dir()


async def test_files_of_a_deleted_adapter_are_never_taken_from_an_attached_engine(tmp_path: Path) -> None:
    async with stage(tmp_path, supervised=False) as on:
        row = await on.outcome(await on.publish("support", b"good"))
        await on.registry.delete_adapter("support")
        await on.outcome(row, {VersionState.RETIRED})
        await on.engine.restart()
        await on.outcome(await on.publish("later", b"later"))

        assert (on.artifacts_dir / row.digest).is_dir()


async def test_an_engine_that_cannot_be_looked_at_changes_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        row = await on.outcome(await on.publish("support", b"good"))
        on.double.faults.hanging = True
        pending = await on.publish("other", b"other")
        await on.changes.wait("polled", 0, 0.3)

        assert (await on.row(row)).state == VersionState.ACTIVE
        assert (await on.row(pending)).state == VersionState.PENDING


async def test_an_engine_that_refuses_to_be_looked_at_is_looked_at_again(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.double.faults.bad_gateways = {"/v1/models"}
        row = await on.publish("support", b"good")
        looks = on.double.calls["/v1/models"]
        async with asyncio.timeout(10):
            while on.double.calls["/v1/models"] < looks + 2:
                await on.changes.wait("polled", 0, 0.02)
        assert (await on.row(row)).state == VersionState.PENDING

        on.double.faults.bad_gateways = set()

        assert (await on.outcome(row)).state == VersionState.ACTIVE


async def test_files_that_cannot_be_deleted_keep_no_other_files_and_no_version_waiting(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as on:
        stuck = await on.outcome(await on.publish("stuck", b"stuck"))
        other = await on.outcome(await on.publish("other", b"other"))
        # A leftover that is no directory cannot be removed as one, by whatever user.
        (on.artifacts_dir / f".deleting-{stuck.digest}").touch()
        for row in (stuck, other):
            await on.registry.delete_adapter(row.adapter_id)
            await on.outcome(row, {VersionState.RETIRED})

        await on.engine.restart()

        async with asyncio.timeout(10):
            while (on.artifacts_dir / other.digest).exists():
                await on.changes.wait("polled", 0, 0.02)
        later = await on.outcome(await on.publish("later", b"later"))
        assert later.state == VersionState.ACTIVE
        assert (on.artifacts_dir / stuck.digest).is_dir()


async def test_an_active_version_whose_files_cannot_be_looked_at_for_a_while_is_served_again_after_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(tmp_path) as on:
        row = await on.outcome(await on.publish("support", b"good"))
        aside = on.artifacts_dir.rename(tmp_path / "aside")
        # A name that no file system takes: as with a disk that is away, the kernel gives no answer.
        on.artifacts_dir.symlink_to("n" * 300)
        await on.engine.restart()
        capsys.readouterr()
        attempts = 0
        async with asyncio.timeout(10):
            while attempts <= MAX_ATTEMPTS_WITHOUT_OUTCOME:
                await on.changes.wait("polled", 0, 0.02)
                attempts += capsys.readouterr().out.count("cannot be read now")
        assert (await on.row(row)).state == VersionState.ACTIVE
        assert not on.served.holds(row.model)

        # In one step, since the reconciler looks at any moment, and what is not there is gone for good.
        back = tmp_path / "back"
        back.symlink_to(aside)
        back.replace(on.artifacts_dir)

        await on.is_served(row)
