"""The registry keeps datasets, adapters and versions: names never come twice, lost races are told."""

import asyncio
from pathlib import Path

import pytest

from service.changes import Changes
from service.errors import AlreadyExists, Conflict, NotFound, WrongState
from service.registry import JobState, VersionRow, VersionState
from tests.service.registry_stage import PROOF, active, dataset, made, new_job, open_registry


async def test_a_dataset_is_kept_and_its_id_is_never_given_again(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        await registry.create_dataset(dataset("mine"))
        assert await registry.get_dataset("mine") == dataset("mine")
        with pytest.raises(AlreadyExists):
            await registry.create_dataset(dataset("mine"))
        await registry.delete_dataset("mine")
        with pytest.raises(NotFound):
            await registry.get_dataset("mine")
        with pytest.raises(NotFound):
            await registry.delete_dataset("mine")
        assert await registry.dataset_id_taken("mine")
        with pytest.raises(AlreadyExists):
            await registry.create_dataset(dataset("mine"))
        assert [row.id for row in (await registry.list_datasets()).rows] == ["rows"]


async def test_a_dataset_stays_while_a_job_needs_it(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        job = await registry.create_job(new_job())
        with pytest.raises(WrongState, match=job.id) as refused:
            await registry.delete_dataset("rows")
        assert refused.value.reason == "DATASET_IN_USE"
        await registry.request_cancel(job.id)
        await registry.delete_dataset("rows")


async def test_a_version_goes_from_pending_to_active_and_every_state_is_kept(tmp_path: Path) -> None:
    changes = Changes()
    async with open_registry(tmp_path, changes=changes) as registry:
        version = await active(registry)
        assert version == await registry.get_version("support", 1)
        assert (version.verification, version.epoch) == (PROOF, 3)
        assert version.active_time is not None
        history = await registry.version_changes("support", 1)
        states = [VersionState.PENDING, VersionState.VERIFYING, VersionState.ACTIVE]
        assert [change.state for change in history] == states
        assert (await registry.get_adapter("support")).active_version == 1
        seen = changes.seen("version/support@1")
        await registry.request_unload("support", 1)
        assert await changes.wait("version/support@1", seen, 0) != seen


async def test_a_failure_keeps_reason_and_numbers_until_the_next_try(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        verifying = await registry.move_version(await made(registry), VersionState.VERIFYING)
        failed = await registry.move_version(
            verifying,
            VersionState.FAILED,
            failure=("NO_EFFECT", "It answers as the base."),
            verification=PROOF,
        )
        assert (failed.failure_reason, failed.verification) == ("NO_EFFECT", PROOF)
        again = await registry.request_load("support", 1)
        assert (again.state, again.failure_reason) == (VersionState.PENDING, None)
        assert again.verification == PROOF


async def test_who_moves_a_version_that_somebody_moved_before_is_told(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as one, open_registry(tmp_path) as two:
        known = await made(one)
        answers = await asyncio.gather(
            one.move_version(known, VersionState.VERIFYING),
            two.move_version(known, VersionState.VERIFYING),
            return_exceptions=True,
        )
        assert {type(answer) for answer in answers} == {VersionRow, Conflict}
        lost = next(answer for answer in answers if isinstance(answer, Conflict))
        assert "PENDING" in lost.message
        assert "VERIFYING" in lost.message


async def test_a_version_that_came_back_to_its_state_is_not_mistaken_for_what_was_known(
    tmp_path: Path,
) -> None:
    async with open_registry(tmp_path) as registry:
        known = await made(registry)
        verifying = await registry.move_version(known, VersionState.VERIFYING)
        again = await registry.move_version(verifying, VersionState.PENDING)
        with pytest.raises(Conflict):
            await registry.move_version(known, VersionState.VERIFYING)
        assert await registry.get_version("support", 1) == again


async def test_load_and_unload_do_what_each_state_allows(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        pending = await made(registry)
        assert await registry.request_load("support", 1) == pending
        with pytest.raises(WrongState):
            await registry.request_unload("support", 1)
        verifying = await registry.move_version(pending, VersionState.VERIFYING)
        await registry.move_version(verifying, VersionState.ACTIVE, verification=PROOF)
        retiring = await registry.request_unload("support", 1)
        assert retiring.state == VersionState.RETIRING
        assert await registry.request_unload("support", 1) == retiring
        with pytest.raises(WrongState) as refused:
            await registry.request_load("support", 1)
        assert refused.value.state == VersionState.RETIRING
        retired = await registry.move_version(retiring, VersionState.RETIRED)
        assert await registry.request_unload("support", 1) == retired
        assert (await registry.request_load("support", 1)).state == VersionState.PENDING
        with pytest.raises(NotFound):
            await registry.request_load("support", 2)


async def test_a_model_name_means_the_newest_active_version_or_exactly_one(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        with pytest.raises(NotFound):
            await registry.resolve_model("support")
        await registry.create_job(new_job(adapter_id="empty"))
        await registry.claim_next_job("me")
        with pytest.raises(WrongState, match="no version"):
            await registry.resolve_model("empty")
        first = await active(registry)
        assert await registry.resolve_model("support") == first
        second = await made(registry)
        assert await registry.resolve_model("support") == first
        with pytest.raises(WrongState, match="PENDING"):
            await registry.resolve_model("support@2")
        second = await registry.move_version(second, VersionState.VERIFYING)
        second = await registry.move_version(second, VersionState.ACTIVE, verification=PROOF)
        assert await registry.resolve_model("support") == second
        assert await registry.resolve_model("support@1") == first
        await registry.request_unload("support", 2)
        assert await registry.resolve_model("support") == first


@pytest.mark.parametrize(
    "name", ["", "@", "@1", "support@", "support@0", "support@x", "support@99999999999", "é@²"]
)
async def test_a_name_that_is_no_model_is_not_found(tmp_path: Path, name: str) -> None:
    async with open_registry(tmp_path) as registry:
        await active(registry)
        with pytest.raises(NotFound):
            await registry.resolve_model(name)


async def test_deleting_an_adapter_retires_what_is_served_and_keeps_the_id(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        await active(registry)
        failed = await registry.move_version(
            await made(registry), VersionState.FAILED, failure=("CORRUPT", "Bits.")
        )
        await made(registry)
        await registry.delete_adapter("support")
        for gone in (registry.get_adapter("support"), registry.get_version("support", 1)):
            with pytest.raises(NotFound):
                await gone
        for gone in (registry.resolve_model("support"), registry.resolve_model("support@1")):
            with pytest.raises(NotFound):
                await gone
        retiring = await registry.all_versions([VersionState.RETIRING])
        assert [row.number for row in retiring] == [1, 3]
        assert await registry.deleted_versions() == [failed]
        retired = await registry.move_version(retiring[0], VersionState.RETIRED)
        assert await registry.deleted_versions() == [retired, failed]
        with pytest.raises(AlreadyExists) as refused:
            await registry.create_job(new_job())
        assert refused.value.reason == "ADAPTER_ID_USED"
        assert (await registry.list_adapters()).rows == ()


async def test_an_adapter_in_training_is_not_deleted(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        job = await registry.create_job(new_job())
        with pytest.raises(WrongState, match=job.id) as refused:
            await registry.delete_adapter("support")
        assert refused.value.state == JobState.QUEUED


async def test_adapters_are_paged_by_name_and_versions_newest_first(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        for adapter_id in ("b", "a", "c", "b", "b"):
            await made(registry, adapter_id)
        page = await registry.list_adapters(limit=2)
        assert [(row.id, row.latest_version) for row in page.rows] == [("a", 1), ("b", 3)]
        rest = await registry.list_adapters(limit=2, cursor=page.next_cursor)
        assert ([row.id for row in rest.rows], rest.next_cursor) == (["c"], "")
        newest = await registry.list_versions("b", limit=2)
        assert [row.number for row in newest.rows] == [3, 2]
        oldest = await registry.list_versions("b", limit=2, cursor=newest.next_cursor)
        assert [row.number for row in oldest.rows] == [1]
        with pytest.raises(NotFound):
            await registry.list_versions("none")
