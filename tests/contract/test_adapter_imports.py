"""Imports of PEFT directories, over the wire and through both clients."""

import asyncio
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import pytest

from hotlora.aio import AsyncClient
from hotlora.client import Client
from hotlora.v1 import adapter_service_pb2 as pb
from hotlora.v1 import evaluation_service_pb2 as evaluations_pb
from hotlora.v1 import tuning_service_pb2 as tuning_pb
from service.artifacts import Manifest, verify_files
from service.datasets import LocalFiles
from tests.contract.stage import BASE, GOOD_LINE, Stage, refused, running, until
from tests.contract.test_adapters import VERSION, proven

CONFIG: Mapping[str, object] = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj"],
    "bias": "none",
    "use_dora": False,
    "modules_to_save": None,
    "rank_pattern": {},
}
MODULE = "base_model.model.model.layers.1.self_attn.q_proj"
SHAPES: Mapping[str, tuple[int, ...]] = {
    f"{MODULE}.lora_A.weight": (4, 64),
    f"{MODULE}.lora_B.weight": (64, 4),
}
Part = pb.ImportAdapterVersionRequest


def weights(shapes: Mapping[str, tuple[int, ...]] = SHAPES, dtype: str = "F32", size: int = 4) -> bytes:
    """A safetensors file of zeros."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + size * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + bytes(end)


def written(directory: Path, tensors: bytes = b"", **config: object) -> Path:
    """An adapter on disk, as PEFT saves one."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    (directory / "adapter_model.safetensors").write_bytes(tensors or weights())
    (directory / "README.md").write_text("mine")
    return directory


def parts(files: Mapping[str, bytes], **header: str) -> Iterator[Part]:
    """The messages of an upload."""
    yield Part(header=pb.ImportHeader(**{"adapter_id": "support", **header}))
    for name, content in files.items():
        yield Part(file=pb.FileHeader(name=name))
        if content:
            yield Part(chunk=content)


def files(tensors: bytes = b"", **config: object) -> dict[str, bytes]:
    """The two that count."""
    return {
        "adapter_config.json": json.dumps({**CONFIG, **config}).encode(),
        "adapter_model.safetensors": tensors or weights(),
    }


def left(stage: Stage) -> list[Path]:
    """What imports left on disk."""
    return [*(stage.home / "imports").glob("*"), *(stage.home / "artifacts").glob("*")]


@pytest.fixture(autouse=True)
def _artifacts(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()


async def test_both_clients_make_versions_that_have_no_job(stage: Stage, tmp_path: Path) -> None:
    source, address = written(tmp_path / "mine"), f"127.0.0.1:{stage.server.port}"
    async with AsyncClient(address) as client:
        first = await client.import_adapter_version(source, "support")
    with Client(address) as other:
        second = await asyncio.to_thread(other.import_adapter_version, source, "support", base_model=BASE)

    assert [first.model, second.model] == ["support@1", "support@2"]
    assert (first.state, first.tuning_job, first.rank) == (pb.AdapterVersion.STATE_PENDING, "", 4)
    directory = stage.home / "artifacts" / first.digest
    manifest = Manifest.read(directory)
    verify_files(directory, manifest)
    assert (manifest.digest, manifest.base_name) == (first.digest, BASE)
    assert first.size_bytes == sum(file.stat().st_size for file in directory.iterdir())
    assert {path.name for path in left(stage)} == {first.digest, second.digest}


async def test_a_directory_is_read_where_the_operator_allows_it_and_nowhere_else(tmp_path: Path) -> None:
    written(tmp_path / "allowed" / "mine")
    written(tmp_path / "other")
    allowed = LocalFiles([tmp_path / "allowed"], setting="HOTLORA_ADAPTER_ROOTS", field="header.local_path")
    async with running(tmp_path, adapter_files=allowed) as stage:
        async with AsyncClient(f"127.0.0.1:{stage.server.port}") as client:
            version = await client.import_adapter_version(str(tmp_path / "allowed" / "mine"), "support")
        assert version.model == "support@1"
        call = stage.send_adapter(parts({}, local_path=str(tmp_path / "other")))
        assert list((await refused(call)).violations) == ["header.local_path"]


async def test_without_an_allowance_no_path_is_read(stage: Stage, tmp_path: Path) -> None:
    source = written(tmp_path / "mine")
    refusal = await refused(stage.send_adapter(parts({}, local_path=str(source))))
    assert "HOTLORA_ADAPTER_ROOTS" in refusal.violations["header.local_path"]
    assert left(stage) == []


async def test_everything_that_is_wrong_is_told_at_once(stage: Stage) -> None:
    shapes = {f"{MODULE}.lora_A.weight": (8, 64), "base_model.model.lm_head.lora_embedding_A": (4, 64)}
    wrong = files(
        weights(shapes),
        r=64,
        use_dora=True,
        lora_bias=True,
        modules_to_save=["lm_head"],
        bias="all",
        rank_pattern={"q_proj": 8},
        target_modules=["q_proj", "query"],
        init_lora_weights="pissa_niter_16",
    )
    refusal = await refused(stage.send_adapter(parts(wrong)))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {
        "adapter_model.safetensors",
        *(
            f"adapter_config.json.{name}"
            for name in (
                *("r", "use_dora", "lora_bias", "modules_to_save", "bias", "rank_pattern"),
                *("target_modules", "init_lora_weights"),
            )
        ),
    }
    assert left(stage) == []


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        (b"no tensors at all", "header"),
        (weights()[:-4], "length"),
        (struct.pack("<Q", 1 << 40), "header"),
        (weights(dtype="I32"), "kind I32"),
        (weights(dict(list(SHAPES.items())[:1])), "no lora_B beside it"),
        (
            weights({name.replace("layers.1", "layers.2"): shape for name, shape in SHAPES.items()}),
            "2 layers",
        ),
        (
            weights({name.replace("q_proj", "k_proj"): shape for name, shape in SHAPES.items()}),
            "[32, 4] fits",
        ),
        (
            weights({name.replace("q_proj", "query"): shape for name, shape in SHAPES.items()}),
            "no such linear",
        ),
        (weights(dict(SHAPES), size=8), "no matrix of its length"),
    ],
)
async def test_weights_that_are_no_adapter_of_the_base_are_refused(
    stage: Stage, tensors: bytes, told: str
) -> None:
    refusal = await refused(stage.send_adapter(parts(files(tensors))))
    assert told in refusal.message
    assert left(stage) == []


@pytest.mark.parametrize(
    "config", [b"[]", b"{", b"[" * 100_000, b'{"peft_type": "LORA"}', b'{"r": "4"}', b""]
)
async def test_a_configuration_that_is_none_is_refused(stage: Stage, config: bytes) -> None:
    upload = files() | {"adapter_config.json": config}
    refusal = await refused(stage.send_adapter(parts(upload)))
    assert list(refusal.violations) == ["adapter_config.json"]


async def test_pickles_and_files_that_nobody_needs_are_refused_by_name(stage: Stage) -> None:
    upload = {"adapter_model.bin": b"pickle", "../evil": b"x", "adapter_config.json": b"{}"}
    refusal = await refused(stage.send_adapter(parts(upload)))
    assert list(refusal.violations) == ["adapter_model.bin", "../evil", "adapter_model.safetensors"]
    assert "pickled" in refusal.violations["adapter_model.bin"]
    assert left(stage) == []


async def test_an_adapter_of_another_base_model_is_refused(stage: Stage) -> None:
    call = stage.send_adapter(parts(files(), base_model="other"))
    assert list((await refused(call)).violations) == ["header.base_model"]
    call = stage.send_adapter(parts(files(), adapter_id=BASE))
    assert (await refused(call)).reason == "NAME_OF_BASE_MODEL"


async def test_a_cancelled_import_leaves_nothing(stage: Stage, tmp_path: Path) -> None:
    call = stage.adapters.ImportAdapterVersion(parts(files(task_type="HANG")))
    begun = tmp_path / "base" / "importing"
    waiting = asyncio.ensure_future(until(begun.exists))
    await waiting
    assert (await refused(stage.send_adapter(parts(files())))).reason == "IMPORT_RUNNING"
    call.cancel()
    await until(lambda: left(stage) == [])
    refusal = await refused(stage.adapters.GetAdapter(pb.GetAdapterRequest(name="adapters/support")))
    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_a_trainer_that_fails_is_a_fault_of_ours_and_leaves_nothing(stage: Stage) -> None:
    refusal = await refused(stage.send_adapter(parts(files(task_type="FAIL"))))
    assert refusal.code is grpc.StatusCode.INTERNAL
    assert left(stage) == []


async def test_a_job_starts_from_an_imported_version_with_its_shape(stage: Stage) -> None:
    await stage.adapters.ImportAdapterVersion(parts(files()))
    await stage.upload(GOOD_LINE)
    job = await stage.job(start_version=VERSION)
    settings = job.hyperparameters
    assert (job.technique, settings.rank, settings.alpha) == (tuning_pb.TECHNIQUE_LORA, 4, 8.0)
    assert (list(settings.target_modules), settings.use_rslora) == (["q_proj"], False)
    other = await refused(stage.job(start_version=VERSION, hyperparameters={"rank": 8}))
    assert "must be 4, as in start_version support@1" in other.violations["hyperparameters.rank"]


async def test_an_imported_version_is_evaluated_on_a_dataset_that_is_named(stage: Stage) -> None:
    await stage.adapters.ImportAdapterVersion(parts(files()))
    await proven(stage, await stage.registry.get_version("support", 1))
    await stage.upload(GOOD_LINE)
    asked = evaluations_pb.CreateEvaluationRequest(adapter_version=VERSION, dataset="datasets/rows")
    evaluation = await stage.evaluations.CreateEvaluation(asked)
    assert (evaluation.dataset, evaluation.tuning_job) == ("datasets/rows", "")
    assert not evaluation.from_validation_split
    asked.dataset = ""
    refusal = await refused(stage.evaluations.CreateEvaluation(asked))
    assert (refusal.reason, "name a dataset" in refusal.message) == ("VERSION_IMPORTED", True)
