"""AdapterService, over the wire."""

import asyncio

import grpc
import pytest

from hotlora.v1 import adapter_service_pb2 as pb
from service.registry import Verification, VersionRow, VersionState
from tests.contract.stage import BASE, GOOD_LINE, Stage, refused
from tests.contract.training import PUBLISHED
from trainer.config import Technique

VERSION = "adapters/support/versions/1"
PROOF = Verification(
    tokens=120,
    adapter_difference=0.01,
    effect=0.9,
    trained_effect=0.91,
    noise=0.005,
    tolerance=0.05,
    seconds=1.5,
    time=1_700_000_100.0,
)


async def a_version(stage: Stage, technique: Technique = Technique.LORA) -> VersionRow:
    """Train the next version of `support`, as a runner would."""
    if not await stage.registry.dataset_id_taken("rows"):
        await stage.upload(GOOD_LINE)
    await stage.job(technique=f"TECHNIQUE_{technique.name}")
    job = await stage.registry.claim_next_job("owner")
    assert job is not None
    return await stage.registry.succeed_job(job.id, job.epoch, PUBLISHED)


async def proven(stage: Stage, row: VersionRow) -> VersionRow:
    """Load and prove a version, as the reconciler would."""
    row = await stage.registry.move_version(row, VersionState.VERIFYING)
    return await stage.registry.move_version(row, VersionState.ACTIVE, verification=PROOF)


async def test_an_adapter_knows_its_newest_and_its_newest_active_version(stage: Stage) -> None:
    await proven(stage, await a_version(stage))
    await a_version(stage)
    adapter = await stage.adapters.GetAdapter(pb.GetAdapterRequest(name="adapters/support"))
    assert (adapter.base_model, adapter.latest_version, adapter.active_version) == (BASE, 2, 1)
    listed = await stage.adapters.ListAdapters(pb.ListAdaptersRequest())
    assert list(listed.adapters) == [adapter]


async def test_a_version_carries_its_proof(stage: Stage) -> None:
    await proven(stage, await a_version(stage))
    version = await stage.adapters.GetAdapterVersion(pb.GetAdapterVersionRequest(name=VERSION))
    assert (version.name, version.model, version.state) == (
        VERSION,
        "support@1",
        pb.AdapterVersion.STATE_ACTIVE,
    )
    assert (version.tuning_job, version.rank, version.digest) == ("tuningJobs/job-1", 16, "ab" * 32)
    assert (version.verification.tokens, version.verification.tolerance) == (120, 0.05)
    assert version.verification.verify_time.seconds == 1_700_000_100
    assert not version.HasField("failure")


async def test_a_failed_version_says_why(stage: Stage) -> None:
    row = await a_version(stage)
    await stage.registry.move_version(row, VersionState.FAILED, failure=("NO_EFFECT", "It changes nothing."))
    version = await stage.adapters.GetAdapterVersion(pb.GetAdapterVersionRequest(name=VERSION))
    assert (version.failure.reason, version.failure.message) == ("NO_EFFECT", "It changes nothing.")


async def test_versions_are_listed_newest_first_in_pages(stage: Stage) -> None:
    for _ in range(3):
        await a_version(stage)
    request = pb.ListAdapterVersionsRequest(parent="adapters/support", page_size=2)
    first = await stage.adapters.ListAdapterVersions(request)
    request.page_token = first.next_page_token
    rest = await stage.adapters.ListAdapterVersions(request)
    assert [version.model for version in [*first.adapter_versions, *rest.adapter_versions]] == [
        "support@3",
        "support@2",
        "support@1",
    ]
    assert rest.next_page_token == ""


async def test_unloading_and_loading_again_go_through_their_states(stage: Stage) -> None:
    unload, load = pb.UnloadAdapterVersionRequest(name=VERSION), pb.LoadAdapterVersionRequest(name=VERSION)
    await proven(stage, await a_version(stage))
    assert (await stage.adapters.LoadAdapterVersion(load)).state == pb.AdapterVersion.STATE_ACTIVE
    assert (await stage.adapters.UnloadAdapterVersion(unload)).state == pb.AdapterVersion.STATE_RETIRING
    refusal = await refused(stage.adapters.LoadAdapterVersion(load))
    assert (refusal.code, refusal.metadata["state"]) == (grpc.StatusCode.FAILED_PRECONDITION, "RETIRING")
    await stage.registry.move_version(await stage.registry.get_version("support", 1), VersionState.RETIRED)
    assert (await stage.adapters.LoadAdapterVersion(load)).state == pb.AdapterVersion.STATE_PENDING
    refusal = await refused(stage.adapters.UnloadAdapterVersion(unload))
    assert (refusal.code, refusal.metadata["state"]) == (grpc.StatusCode.FAILED_PRECONDITION, "PENDING")


async def test_a_watch_shows_each_state_and_ends_when_the_version_is_proven(stage: Stage) -> None:
    row = await a_version(stage)
    call = stage.adapters.WatchAdapterVersion(pb.WatchAdapterVersionRequest(name=VERSION))
    async with asyncio.timeout(5):
        assert (await call.read()).state == pb.AdapterVersion.STATE_PENDING
        row = await stage.registry.move_version(row, VersionState.VERIFYING)
        assert (await call.read()).state == pb.AdapterVersion.STATE_VERIFYING
        await stage.registry.move_version(row, VersionState.ACTIVE, verification=PROOF)
        last = await call.read()
        assert (last.state, last.verification.tokens) == (pb.AdapterVersion.STATE_ACTIVE, 120)
        assert await call.read() is grpc.aio.EOF


async def test_a_deleted_adapter_is_gone_and_its_name_stays_taken(stage: Stage) -> None:
    await proven(stage, await a_version(stage))
    await stage.adapters.DeleteAdapter(pb.DeleteAdapterRequest(name="adapters/support"))
    refusal = await refused(stage.adapters.GetAdapter(pb.GetAdapterRequest(name="adapters/support")))
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    refusal = await refused(stage.job())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ADAPTER_ID_USED")


async def test_an_adapter_in_training_is_not_deleted(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    await stage.job()
    refusal = await refused(stage.adapters.DeleteAdapter(pb.DeleteAdapterRequest(name="adapters/support")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ADAPTER_IN_USE")


@pytest.mark.parametrize(
    "method", ["GetAdapterVersion", "LoadAdapterVersion", "UnloadAdapterVersion", "WatchAdapterVersion"]
)
async def test_a_version_that_does_not_exist_is_not_found(stage: Stage, method: str) -> None:
    await a_version(stage)
    request = getattr(pb, f"{method}Request")(name="adapters/support/versions/2")
    call = getattr(stage.adapters, method)(request)
    refusal = await refused(call.read() if method.startswith("Watch") else call)
    assert refusal.code is grpc.StatusCode.NOT_FOUND
