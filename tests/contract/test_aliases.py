"""AliasService, over the wire."""

from dataclasses import replace

import grpc
import pytest

from hotlora.v1 import adapter_service_pb2 as adapters_pb
from hotlora.v1 import alias_service_pb2 as pb
from hotlora.v1 import evaluation_service_pb2 as evaluations_pb
from service.evaluation import Figure
from service.registry import VersionState
from tests.contract.stage import Stage, refused
from tests.contract.test_adapters import a_version, proven
from tests.contract.test_evaluations import REPORT, claimed

PROD = "adapters/support/aliases/prod"


async def versions(stage: Stage, count: int) -> None:
    """So many ACTIVE versions of `support`."""
    for _ in range(count):
        await proven(stage, await a_version(stage))


async def promoted(stage: Stage, version: int, name: str = PROD, **fields: object) -> pb.Alias:
    return await stage.aliases.PromoteVersion(pb.PromoteVersionRequest(name=name, version=version, **fields))


async def split(stage: Stage, percents: dict[int, int], name: str = PROD, **fields: object) -> pb.Alias:
    shares = [pb.TrafficShare(version=version, percent=percent) for version, percent in percents.items()]
    return await stage.aliases.SplitTraffic(pb.SplitTrafficRequest(name=name, shares=shares, **fields))


async def rolled_back(stage: Stage, steps: int = 0, name: str = PROD, **fields: object) -> pb.Alias:
    return await stage.aliases.RollBackAlias(pb.RollBackAliasRequest(name=name, steps=steps, **fields))


async def changes(stage: Stage, name: str = PROD) -> list[pb.AliasChange]:
    listed = await stage.aliases.ListAliasChanges(pb.ListAliasChangesRequest(parent=name))
    return list(listed.changes)


def percents(alias: pb.Alias) -> dict[int, int]:
    return {share.version: share.percent for share in alias.shares}


async def model_of(stage: Stage, name: str, place: float = 0.0) -> str:
    """Which version a name means for a request at that place."""
    return (await stage.registry.resolve_model(name, place)).model


async def evaluated(stage: Stage, version: int, *figures: Figure, asked: str = "those") -> None:
    """An evaluation of a version with such figures, on some rows."""
    await stage.evaluations.CreateEvaluation(
        evaluations_pb.CreateEvaluationRequest(
            adapter_version=f"adapters/support/versions/{version}", dataset="datasets/rows"
        )
    )
    report = replace(REPORT, figures=figures, rows_digest=asked).encode()
    await stage.registry.evaluations.succeed(await claimed(stage), report)


def accuracy(adapter: float) -> Figure:
    return Figure(name="accuracy", base=0.1, adapter=adapter)


async def test_an_alias_points_at_the_version_that_is_promoted(stage: Stage) -> None:
    await versions(stage, 2)
    alias = await promoted(stage, 1, author="ada")
    assert (alias.name, alias.model, alias.revision, alias.gated) == (PROD, "support@prod", 1, False)
    assert percents(alias) == {1: 100}
    assert await model_of(stage, "support@prod") == "support@1"
    assert await model_of(stage, "support") == "support@2", "the plain name is another alias"
    again = await promoted(stage, 2)
    assert (again.revision, percents(again), again.create_time) == (2, {2: 100}, alias.create_time)
    assert await promoted(stage, 2) == again, "nothing changed"
    assert await stage.aliases.GetAlias(pb.GetAliasRequest(name=PROD)) == again


async def test_the_plain_name_is_the_alias_default_once_there_is_one(stage: Stage) -> None:
    await versions(stage, 2)
    default = "adapters/support/aliases/default"
    alias = await promoted(stage, 1, default)
    assert alias.model == "support"
    assert [await model_of(stage, name) for name in ("support", "support@default")] == ["support@1"] * 2
    await stage.aliases.DeleteAlias(pb.DeleteAliasRequest(name=default))
    assert [await model_of(stage, name) for name in ("support", "support@default")] == ["support@2"] * 2


async def test_rollbacks_go_back_step_by_step_and_never_to_what_was_rolled_back(stage: Stage) -> None:
    await versions(stage, 4)
    for version in (1, 2, 3):
        await promoted(stage, version)
    assert percents(await rolled_back(stage)) == {2: 100}
    assert percents(await promoted(stage, 4)) == {4: 100}
    assert percents(await rolled_back(stage)) == {2: 100}
    assert percents(await rolled_back(stage)) == {1: 100}
    refusal = await refused(rolled_back(stage))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOTHING_BEFORE")
    for version in (2, 3, 4):
        await promoted(stage, version)
    assert percents(await rolled_back(stage, steps=3)) == {1: 100}
    refusal = await refused(rolled_back(stage, steps=1))
    assert refusal.reason == "NOTHING_BEFORE"


async def test_the_history_says_who_did_what_when_from_where_to_where(stage: Stage) -> None:
    await versions(stage, 2)
    await promoted(stage, 1, author="ada")
    stage.clock.now += 60
    await split(stage, {1: 95, 2: 5}, author="bob")
    stage.clock.now += 60
    await rolled_back(stage, author="eve")
    await stage.aliases.DeleteAlias(pb.DeleteAliasRequest(name=PROD, author="ada"))

    told = await changes(stage)

    assert [(change.revision, pb.AliasChange.Kind.Name(change.kind), change.author) for change in told] == [
        (4, "KIND_DELETED", "ada"),
        (3, "KIND_ROLLED_BACK", "eve"),
        (2, "KIND_SPLIT", "bob"),
        (1, "KIND_PROMOTED", "ada"),
    ]
    points = [
        [{share.version: share.percent for share in shares} for shares in (change.before, change.after)]
        for change in told
    ]
    assert points == [[{1: 100}, {}], [{1: 95, 2: 5}, {1: 100}], [{1: 100}, {1: 95, 2: 5}], [{}, {1: 100}]]
    assert told[1].time.seconds - told[2].time.seconds == 60
    page = await stage.aliases.ListAliasChanges(pb.ListAliasChangesRequest(parent=PROD, page_size=3))
    rest = await stage.aliases.ListAliasChanges(
        pb.ListAliasChangesRequest(parent=PROD, page_size=3, page_token=page.next_page_token)
    )
    assert [*page.changes, *rest.changes] == told
    assert (await promoted(stage, 2)).revision == 5, "history goes on"


async def test_a_split_gives_each_version_its_part_of_all_places_and_keeps_them_as_it_grows(
    stage: Stage,
) -> None:
    await versions(stage, 3)
    places = [number / 200 for number in range(200)]

    async def models(percents: dict[int, int]) -> list[str]:
        await split(stage, percents)
        return [await model_of(stage, "support@prod", place) for place in places]

    few, more = await models({1: 95, 3: 5}), await models({3: 20, 1: 80})
    assert (few.count("support@1"), few.count("support@3")) == (190, 10)
    assert (more.count("support@1"), more.count("support@3")) == (160, 40)
    assert all(then == "support@3" for now, then in zip(few, more, strict=True) if now == "support@3")


async def test_the_others_answer_for_a_version_of_a_split_that_fails(stage: Stage) -> None:
    await versions(stage, 2)
    await split(stage, {1: 50, 2: 50})
    row = await stage.registry.get_version("support", 2)
    row = await stage.registry.move_version(row, VersionState.VERIFYING)
    await stage.registry.move_version(row, VersionState.FAILED, failure=("CORRUPT", "it is"))
    assert {await model_of(stage, "support@prod", place) for place in (0.1, 0.9)} == {"support@1"}


async def test_a_version_with_traffic_is_not_unloaded(stage: Stage) -> None:
    await versions(stage, 2)
    await split(stage, {1: 99, 2: 1})
    unload = adapters_pb.UnloadAdapterVersionRequest(name="adapters/support/versions/2")
    refusal = await refused(stage.adapters.UnloadAdapterVersion(unload))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_HAS_TRAFFIC")
    assert "support@2 answers for support@prod" in refusal.message
    await promoted(stage, 1)
    assert (
        await stage.adapters.UnloadAdapterVersion(unload)
    ).state == adapters_pb.AdapterVersion.STATE_RETIRING
    refusal = await refused(rolled_back(stage))
    assert refusal.reason == "VERSION_NOT_ACTIVE"
    assert "support@2 is RETIRING" in refusal.message


async def test_a_gated_alias_takes_no_version_that_was_evaluated_worse_unless_forced(stage: Stage) -> None:
    await versions(stage, 3)
    await promoted(stage, 1, gated=True)
    refusal = await refused(promoted(stage, 2))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_COMPARABLE")
    await evaluated(stage, 1, accuracy(0.84))
    await evaluated(stage, 2, accuracy(0.71))
    refusal = await refused(promoted(stage, 2))
    assert refusal.reason == "EVALUATED_WORSE"
    assert "support@2 has accuracy 0.71 where support@1" in refusal.message and "0.84" in refusal.message
    refusal = await refused(split(stage, {1: 90, 2: 10}))
    assert refusal.reason == "EVALUATED_WORSE"
    await evaluated(stage, 3, accuracy(0.84))
    assert percents(await promoted(stage, 3)) == {3: 100}
    assert percents(await promoted(stage, 2, force=True)) == {2: 100}
    assert [change.forced for change in await changes(stage)] == [True, False, False]
    assert percents(await rolled_back(stage, steps=2)) == {1: 100}, "rolling back is never gated"
    assert (await promoted(stage, 2, gated=False)).gated is False


async def test_the_history_tells_when_a_gate_went_on_or_off_and_a_rollback_does_not_count_it(
    stage: Stage,
) -> None:
    await versions(stage, 2)
    await promoted(stage, 1)
    await promoted(stage, 2)
    assert (await promoted(stage, 2, gated=True)).revision == 3
    assert (await promoted(stage, 2, gated=True)).revision == 3, "it was on"
    assert (await promoted(stage, 2, gated=False, force=True)).revision == 4
    told = [(change.Kind.Name(change.kind), change.gated, change.forced) for change in await changes(stage)]
    assert told == [
        ("KIND_GATE_CHANGED", False, False),
        ("KIND_GATE_CHANGED", True, False),
        ("KIND_PROMOTED", False, False),
        ("KIND_PROMOTED", False, False),
    ]
    assert percents(await rolled_back(stage)) == {1: 100}
    newest = (await changes(stage))[0]
    assert ([share.version for share in newest.before], newest.gated) == ([2], False)


async def test_evaluations_on_other_rows_are_not_compared(stage: Stage) -> None:
    await versions(stage, 2)
    await promoted(stage, 1, gated=True)
    await evaluated(stage, 1, accuracy(0.84))
    await evaluated(stage, 2, accuracy(0.71), asked="others")
    assert (await refused(promoted(stage, 2))).reason == "NOT_COMPARABLE"
    for version in (1, 2):  # as earlier releases recorded it
        await evaluated(stage, version, accuracy(0.9), asked="")
    assert (await refused(promoted(stage, 2))).reason == "NOT_COMPARABLE"
    await evaluated(stage, 1, accuracy(0.5), asked="others")
    assert percents(await promoted(stage, 2)) == {2: 100}, "both were asked the others"


@pytest.mark.parametrize("told", [(), (Figure(name="perplexity", base=9.0, adapter=2.0),)])
async def test_evaluations_without_a_figure_in_common_are_not_compared(
    stage: Stage, told: tuple[Figure, ...]
) -> None:
    await versions(stage, 2)
    await promoted(stage, 1, gated=True)
    await evaluated(stage, 1, accuracy(0.84))
    await evaluated(stage, 2, *told)
    assert (await refused(promoted(stage, 2))).reason == "NOT_COMPARABLE"


async def test_a_version_with_a_share_passes_the_gate_again_to_get_a_larger_one(stage: Stage) -> None:
    await versions(stage, 2)
    await promoted(stage, 1, gated=True)
    await evaluated(stage, 1, accuracy(0.84))
    await evaluated(stage, 2, accuracy(0.71))
    await split(stage, {1: 95, 2: 5}, force=True)
    for larger in (promoted(stage, 2), split(stage, {1: 90, 2: 10})):
        assert (await refused(larger)).reason == "EVALUATED_WORSE"
    assert percents(await split(stage, {1: 97, 2: 3})) == {1: 97, 2: 3}
    assert percents(await promoted(stage, 1)) == {1: 100}


async def test_who_expects_another_revision_changes_nothing(stage: Stage) -> None:
    await versions(stage, 2)
    assert (await promoted(stage, 1, expected_revision=0)).revision == 1
    for call in (
        promoted(stage, 2, expected_revision=0),
        split(stage, {1: 50, 2: 50}, expected_revision=2),
        rolled_back(stage, expected_revision=7),
        stage.aliases.DeleteAlias(pb.DeleteAliasRequest(name=PROD, expected_revision=2)),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "ALIAS_MOVED")
    assert (await promoted(stage, 2, expected_revision=1)).revision == 2


async def test_what_is_not_there_is_told_by_its_name(stage: Stage) -> None:
    await versions(stage, 1)
    await a_version(stage)
    get = pb.GetAliasRequest(name=PROD)
    assert (await refused(stage.aliases.GetAlias(get))).reason == "ALIAS_NOT_FOUND"
    assert (await refused(rolled_back(stage))).reason == "ALIAS_NOT_FOUND"
    listed = pb.ListAliasChangesRequest(parent=PROD)
    assert (await refused(stage.aliases.ListAliasChanges(listed))).reason == "ALIAS_NOT_FOUND"
    assert (await refused(promoted(stage, 1, "adapters/nobody/aliases/prod"))).reason == "ADAPTER_NOT_FOUND"
    assert (await refused(promoted(stage, 9))).reason == "VERSION_NOT_FOUND"
    assert (await refused(promoted(stage, 2))).reason == "VERSION_NOT_ACTIVE"
    assert (await refused(stage.aliases.GetAlias(get))).reason == "ALIAS_NOT_FOUND", "nothing was half made"
    await promoted(stage, 1)
    await stage.aliases.DeleteAlias(pb.DeleteAliasRequest(name=PROD))
    assert (await refused(stage.aliases.GetAlias(get))).reason == "ALIAS_NOT_FOUND"
    assert len(await changes(stage)) == 2


async def test_every_bad_field_of_a_split_is_told_at_once(stage: Stage) -> None:
    await versions(stage, 1)
    shares = [pb.TrafficShare(version=1, percent=60), pb.TrafficShare(version=1, percent=60)]
    wrong = {"name": "support@prod", "expected_revision": -1, "author": "a" * 129}
    request = pb.SplitTrafficRequest(shares=shares, **wrong)
    refusal = await refused(stage.aliases.SplitTraffic(request))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"shares", *wrong}
    refusal = await refused(split(stage, {1: 60}))
    assert "must make 100, got 60" in refusal.violations["shares"]
    refusal = await refused(split(stage, {1: 101, 0: 5}))
    assert set(refusal.violations) == {"shares[0].percent", "shares[1].version"}


@pytest.mark.parametrize("alias", ["8", "8b", "Prod", "a.b", "-a", "a-", "a" * 64, ""])
async def test_an_alias_has_a_name_that_no_version_has(stage: Stage, alias: str) -> None:
    refusal = await refused(promoted(stage, 1, f"adapters/support/aliases/{alias}"))
    assert set(refusal.violations) == {"name"}


async def test_aliases_are_listed_by_id_in_pages(stage: Stage) -> None:
    await versions(stage, 1)
    for alias in ("canary", "prod", "default"):
        await promoted(stage, 1, f"adapters/support/aliases/{alias}")
    request = pb.ListAliasesRequest(parent="adapters/support", page_size=2)
    page = await stage.aliases.ListAliases(request)
    request.page_token = page.next_page_token
    rest = await stage.aliases.ListAliases(request)
    assert [each.model for each in [*page.aliases, *rest.aliases]] == [
        "support@canary", "support", "support@prod",
    ]  # fmt: skip
    assert not rest.next_page_token
