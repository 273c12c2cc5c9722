"""Several base models, over the wire: each call says which one it means, and what it leaves out follows from
what is there."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from hotlora.v1 import adapter_service_pb2 as adapters_pb
from hotlora.v1 import chat_service_pb2 as chat_pb
from hotlora.v1 import dataset_service_pb2 as datasets_pb
from hotlora.v1 import planning_service_pb2 as planning_pb
from hotlora.v1 import tuning_service_pb2 as pb
from tests.contract.stage import BASE, CONTEXT_LENGTH, GOOD_LINE, Stage, create_refused, refused, running
from tests.contract.test_adapter_imports import SHAPES, files, parts, weights
from tests.contract.test_adapters import PUBLISHED

SHORT = "short"
SHORT_LENGTH = 64
NAMES = f"{BASE} and {SHORT}"


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Stage]:
    """A service with a second base, whose context is short."""
    (tmp_path / "artifacts").mkdir()
    async with running(tmp_path, more_bases={SHORT: SHORT_LENGTH}) as stage:
        yield stage


def sent(content: bytes, **header: object) -> Iterator[datasets_pb.UploadDatasetRequest]:
    yield datasets_pb.UploadDatasetRequest(header=datasets_pb.UploadHeader(**header))
    yield datasets_pb.UploadDatasetRequest(chunk=content)


async def test_models_and_engines_are_listed_with_their_base(two: Stage) -> None:
    listed = await two.chat.ListModels(chat_pb.ListModelsRequest())
    assert [(model.id, model.base_model) for model in listed.models] == [(BASE, BASE), (SHORT, SHORT)]
    assert [replica.base_model for replica in listed.replicas] == [BASE, SHORT]


async def test_a_job_is_of_the_base_that_is_named_else_of_its_adapters_else_of_the_default(
    two: Stage,
) -> None:
    await two.upload(GOOD_LINE)
    assert (await two.job(adapter_id="one")).base_model == BASE
    job = await two.job(adapter_id="two", base_model=SHORT)
    assert (job.base_model, job.hyperparameters.max_sequence_length) == (SHORT, SHORT_LENGTH)
    assert (await two.job(adapter_id="two")).base_model == SHORT
    assert (await two.adapters.GetAdapter(adapters_pb.GetAdapterRequest(name="adapters/two"))).base_model == (
        SHORT
    )
    refusal = await create_refused(two, adapter_id="two", base_model=BASE)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "OTHER_BASE_MODEL")


async def test_a_job_that_goes_on_from_a_version_is_of_its_base(two: Stage) -> None:
    await two.upload(GOOD_LINE)
    await two.job(adapter_id="two", base_model=SHORT)
    claimed = await two.registry.claim_next_job("owner")
    assert claimed is not None
    await two.registry.succeed_job(claimed.id, claimed.epoch, PUBLISHED)
    start = {"start_version": "adapters/two/versions/1", "adapter_id": "three"}
    assert (await two.job(**start)).base_model == SHORT
    refusal = await create_refused(two, **{**start, "adapter_id": "four"}, base_model=BASE)
    assert f"trained on base model '{SHORT}', not '{BASE}'" in refusal.violations["start_version"]


async def test_a_base_that_is_not_there_is_refused_with_those_that_are(two: Stage) -> None:
    await two.upload(GOOD_LINE)
    refusal = await create_refused(two, base_model="wishful")
    assert refusal.violations == {"base_model": f"there is no base model 'wishful' here; there is {NAMES}"}
    refusal = await refused(two.planning.Plan(planning_pb.PlanRequest(base_model="wishful")))
    assert NAMES in refusal.violations["base_model"]
    refusal = await refused(two.send(sent(GOOD_LINE, base_model="wishful")))
    assert NAMES in refusal.violations["header.base_model"]
    header = datasets_pb.UploadHeader(base_model="wishful")
    request = datasets_pb.ImportDatasetRequest(header=header, local_path="/nowhere")
    refusal = await refused(two.datasets.ImportDataset(request))
    assert refusal.violations.keys() == {"header.base_model", "local_path"}
    refusal = await refused(two.send_adapter(parts(files(), adapter_id="mine", base_model="wishful")))
    assert NAMES in refusal.violations["header.base_model"]


async def test_no_adapter_may_have_the_name_of_any_base(two: Stage) -> None:
    await two.upload(GOOD_LINE)
    for name in (BASE, SHORT):
        refusal = await create_refused(two, adapter_id=name)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NAME_OF_BASE_MODEL")
        refusal = await refused(two.send_adapter(parts(files(), adapter_id=name)))
        assert refusal.reason == "NAME_OF_BASE_MODEL"


async def test_a_job_is_held_to_what_its_own_base_serves(two: Stage) -> None:
    await two.upload(GOOD_LINE)
    settings = pb.Hyperparameters(max_sequence_length=SHORT_LENGTH + 1)
    refusal = await create_refused(two, base_model=SHORT, hyperparameters=settings)
    assert str(SHORT_LENGTH) in refusal.violations["hyperparameters.max_sequence_length"]
    assert (await two.job(hyperparameters=settings)).base_model == BASE
    for name, length in ((SHORT, SHORT_LENGTH), ("", CONTEXT_LENGTH)):
        too_long = pb.Hyperparameters(max_sequence_length=length + 1)
        request = planning_pb.PlanRequest(base_model=name, hyperparameters=too_long)
        refusal = await refused(two.planning.Plan(request))
        assert str(length) in refusal.violations["hyperparameters.max_sequence_length"]
    plan = await two.planning.Plan(planning_pb.PlanRequest(base_model=SHORT))
    usual = await two.planning.Plan(planning_pb.PlanRequest())
    assert (plan.base_model, usual.base_model) == (SHORT, BASE)
    assert plan.parameters > usual.parameters, "it has a layer more"


async def test_a_dataset_is_counted_by_one_base_and_a_job_of_another_says_so(two: Stage) -> None:
    dataset = await two.upload(GOOD_LINE)
    assert dataset.base_model == BASE
    counted = await two.datasets.UploadDataset(sent(GOOD_LINE, dataset_id="counted", base_model=SHORT))
    assert counted.base_model == SHORT
    for name, said in (("rows", "user\nhello"), ("counted", "user\nHear: hello")):
        request = datasets_pb.PreviewDatasetRequest(name=f"datasets/{name}")
        (row,) = (await two.datasets.PreviewDataset(request)).rows
        assert said in "".join(segment.text for segment in row.segments)
    looked_at = await two.datasets.UploadDataset(sent(GOOD_LINE, validate_only=True))
    assert looked_at.base_model == BASE

    assert not (await two.job(adapter_id="one")).warnings
    (warning,) = (await two.job(adapter_id="two", base_model=SHORT)).warnings
    assert warning.field == "dataset"
    assert f"counted as {BASE} reads it" in warning.description
    assert not (await two.job(adapter_id="two", dataset="datasets/counted")).warnings

    long_row = GOOD_LINE.replace(b"hello", b"hello " * 20, 1)
    await two.upload(long_row, "long")
    refusal = await refused(two.send(sent(long_row, base_model=SHORT)))
    assert refusal.reason == "BAD_LINES"
    job = await two.job(adapter_id="two", dataset="datasets/long")  # the run will see, in its own tokens
    assert [each.field for each in job.warnings] == ["dataset"]


async def test_an_adapter_is_imported_for_the_base_that_it_belongs_to(two: Stage) -> None:
    of_third_layer = {name.replace("layers.1.", "layers.2."): shape for name, shape in SHAPES.items()}
    deeper = files(weights(of_third_layer))
    first = await two.send_adapter(parts(deeper, adapter_id="mine", base_model=SHORT))
    refusal = await refused(two.send_adapter(parts(deeper, adapter_id="elsewhere")))
    assert "the base model has 2 layers" in str(refusal.violations)
    second = await two.send_adapter(parts(files(), adapter_id="mine"))
    other = await two.send_adapter(parts(files(), adapter_id="other"))
    assert [first.model, second.model, other.model] == ["mine@1", "mine@2", "other@1"]
    for name, base in (("mine", SHORT), ("other", BASE)):
        adapter = await two.adapters.GetAdapter(adapters_pb.GetAdapterRequest(name=f"adapters/{name}"))
        assert adapter.base_model == base
    refusal = await refused(two.send_adapter(parts(files(), adapter_id="mine", base_model=BASE)))
    assert refusal.reason == "OTHER_BASE_MODEL"


async def test_what_belongs_to_a_base_that_is_not_there_says_so(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    async with running(tmp_path, more_bases={SHORT: SHORT_LENGTH}) as stage:
        await stage.send_adapter(parts(files(), adapter_id="mine", base_model=SHORT))
    async with running(tmp_path) as stage:
        await stage.upload(GOOD_LINE, "others")
        refusal = await create_refused(stage, adapter_id="mine", dataset="datasets/others")
        assert refusal.violations.keys() == {"adapter_id"}
        assert f"belongs to base model '{SHORT}'" in refusal.violations["adapter_id"]
        refusal = await refused(stage.send_adapter(parts(files(), adapter_id="mine")))
        assert f"belongs to base model '{SHORT}'" in refusal.violations["header.adapter_id"]
        (_, mine) = (await stage.chat.ListModels(chat_pb.ListModelsRequest())).models
        assert (mine.id, mine.serving) == ("mine@1", chat_pb.Model.SERVING_NONE)


async def test_a_dataset_of_an_earlier_release_was_counted_by_the_default_base(two: Stage) -> None:
    await two.upload(GOOD_LINE)
    row = await two.registry.get_dataset("rows")
    await two.registry.create_dataset(replace(row, id="old", base_model=""))
    assert not (await two.job(adapter_id="one", dataset="datasets/old")).warnings
    (warning,) = (await two.job(adapter_id="two", dataset="datasets/old", base_model=SHORT)).warnings
    assert "counted as the default base reads it" in warning.description
