"""Exports of versions, over the wire and through both clients."""

import asyncio
import hashlib
import json
from pathlib import Path

import grpc
import pytest
import yaml

from hotlora import errors
from hotlora.aio import AsyncClient
from hotlora.arrival import Arrival
from hotlora.client import Client
from hotlora.v1 import adapter_service_pb2 as pb
from tests.contract.stage import BASE, GOOD_LINE, Stage, refused, running, until
from tests.contract.test_adapters import VERSION, proven
from tests.contract.test_aliases import accuracy, evaluated
from tests.contract.training import HISTORY
from tests.doubles.trainer import write_artifact
from trainer.config import BaseModel, Hyperparameters, JobFile, Technique
from trainer.events import Published

Request = pb.ExportAdapterVersionRequest
MERGED_FILES = [
    "chat_template.jinja",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
]
"""Of the base of these tests."""


async def kept(stage: Stage) -> Path:
    """Version 1 of `support`, proven, with its files; gives their directory."""
    await stage.upload(GOOD_LINE)
    await stage.job()
    job = await stage.registry.claim_next_job("owner")
    assert job is not None
    artifacts = stage.home / "artifacts"
    artifacts.mkdir()
    (stage.home / "work").mkdir()
    digest, size_bytes = write_artifact(
        JobFile(
            job_id=job.id,
            attempt=1,
            adapter_id="support",
            base_model=BaseModel(name=BASE, path=stage.home / "base", revision="sha256:tiny"),
            dataset_path=stage.home / "datasets" / "rows.jsonl",
            dataset_sha256="cd" * 32,
            technique=Technique.LORA,
            hyperparameters=Hyperparameters(rank=16),
            work_path=stage.home / "work",
            artifacts_path=artifacts,
        )
    )
    for told in HISTORY:
        await stage.registry.append_event(job.id, job.epoch, told)
    event = Published(time=8.0, step=4, digest=digest, size_bytes=size_bytes, rank=16, best_step=2)
    await proven(stage, await stage.registry.succeed_job(job.id, job.epoch, event))
    return artifacts / digest


def contents(directory: Path) -> dict[str, bytes]:
    """Every file by its name."""
    return {file.name: file.read_bytes() for file in directory.iterdir()}


async def test_both_clients_write_the_published_files_and_a_card(stage: Stage, tmp_path: Path) -> None:
    directory = await kept(stage)
    await evaluated(stage, 1, accuracy(0.84))
    address = f"127.0.0.1:{stage.server.port}"
    async with AsyncClient(address) as client:
        await client.export_adapter_version(VERSION, tmp_path / "out" / "one")
    with Client(address) as other:
        await asyncio.to_thread(other.export_adapter_version, VERSION, tmp_path / "out" / "two")

    files = contents(tmp_path / "out" / "one")
    assert files == contents(tmp_path / "out" / "two")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one", "two"], "nothing is left"
    card = files.pop("README.md").decode()
    published = contents(directory)
    del published["MANIFEST.json"]
    assert files == published
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "base_model": BASE,
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["hotlora", "lora", f"base_model:adapter:{BASE}"],
    }
    for told in (
        *("support@1", "sha256:tiny", "cd" * 32, directory.name),
        *("| rank | 16 |", "| 2 | 2.5 | 2.25 |  |", "| adapter difference | 0.01 |"),
        *("| learning rate | 0.0002 |", "| accuracy | 0.1 | 0.84 |"),
    ):
        assert told in text


async def test_an_export_never_writes_over_anything(stage: Stage, tmp_path: Path) -> None:
    await kept(stage)
    (tmp_path / "mine").write_text("precious")
    async with AsyncClient(f"127.0.0.1:{stage.server.port}") as client:
        with pytest.raises(FileExistsError):
            await client.export_adapter_version(VERSION, tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "precious"


async def test_files_that_are_not_what_was_published_are_not_exported(stage: Stage, tmp_path: Path) -> None:
    directory = await kept(stage)
    (directory / "adapter_model.safetensors").write_bytes(b"other")
    async with AsyncClient(f"127.0.0.1:{stage.server.port}") as client:
        with pytest.raises(errors.DataLoss, match=r"adapter_model\.safetensors"):
            await client.export_adapter_version(VERSION, tmp_path / "out" / "one")
    assert list((tmp_path / "out").iterdir()) == []


async def test_a_version_that_does_not_exist_is_not_exported(stage: Stage) -> None:
    call = stage.adapters.ExportAdapterVersion(pb.ExportAdapterVersionRequest(name=VERSION))
    assert (await refused(call.read())).code is grpc.StatusCode.NOT_FOUND


def llama_cpp(directory: Path, *more: str) -> Path:
    """A checkout whose converter writes down what it was told, and then does `more`."""
    directory.mkdir()
    lines = [
        "import json, os, pathlib, sys",
        "options = dict(zip(sys.argv[2::2], sys.argv[3::2]))",
        "files = sorted(file.name for file in pathlib.Path(sys.argv[1]).iterdir())",
        "told = {'type': options['--outtype'], 'files': files, 'environment': dict(os.environ)}",
        *(more or ["pathlib.Path(options['--outfile']).write_text(json.dumps(told))"]),
    ]
    (directory / "convert_hf_to_gguf.py").write_text("\n".join(lines))
    return directory


def being_made(stage: Stage) -> list[Path]:
    """What exports left on disk."""
    return list((stage.home / "exports").glob("*"))


async def test_both_clients_get_a_whole_model_of_base_and_adapter(stage: Stage, tmp_path: Path) -> None:
    directory = await kept(stage)
    address = f"127.0.0.1:{stage.server.port}"
    async with AsyncClient(address) as client:
        await client.export_adapter_version(VERSION, tmp_path / "one", format=Request.FORMAT_MERGED)
    with Client(address) as other:
        await asyncio.to_thread(
            other.export_adapter_version, VERSION, tmp_path / "two", format="FORMAT_MERGED"
        )

    files = contents(tmp_path / "one")
    assert files == contents(tmp_path / "two")
    assert sorted(files) == sorted(["README.md", *MERGED_FILES])
    assert files["model.safetensors"] == (directory / "adapter_model.safetensors").read_bytes()
    _, front, text = files["README.md"].decode().split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "transformers"
    assert f"base_model:finetune:{BASE}" in front
    assert "added to the weights of the base model" in text
    assert being_made(stage) == []


async def test_a_gguf_file_is_what_the_configured_checkout_of_llama_cpp_makes_of_the_whole_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTLORA_ENGINE_API_KEY", "precious")
    async with running(tmp_path, llama_cpp_dir=llama_cpp(tmp_path / "llama.cpp")) as stage:
        await kept(stage)
        async with AsyncClient(f"127.0.0.1:{stage.server.port}") as client:
            await client.export_adapter_version(
                VERSION, tmp_path / "out", format=Request.FORMAT_GGUF, gguf_type=Request.GGUF_TYPE_Q8_0
            )
        assert being_made(stage) == []

    files = contents(tmp_path / "out")
    assert sorted(files) == ["README.md", "support-1-q8_0.gguf"]
    told = json.loads(files["support-1-q8_0.gguf"])
    assert told["type"] == "q8_0"
    assert told["files"] == MERGED_FILES
    assert told["environment"]["HF_HUB_OFFLINE"] == "1"
    assert "precious" not in told["environment"].values()
    card = files["README.md"].decode()
    assert "library_name: gguf" in card
    assert f"base_model:quantized:{BASE}" in card


@pytest.mark.parametrize("ending", ["sys.exit('no such architecture')", "pass"])
async def test_what_llama_cpp_does_not_convert_is_no_export(tmp_path: Path, ending: str) -> None:
    async with running(tmp_path, llama_cpp_dir=llama_cpp(tmp_path / "llama.cpp", ending)) as stage:
        await kept(stage)
        call = stage.adapters.ExportAdapterVersion(Request(name=VERSION, format=Request.FORMAT_GGUF))
        refusal = await refused(call.read())
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "CONVERSION_FAILED",
        )
        assert being_made(stage) == []


async def test_a_format_that_cannot_be_had_is_refused_with_what_can_be_done(stage: Stage) -> None:
    await kept(stage)
    gguf = stage.adapters.ExportAdapterVersion(Request(name=VERSION, format=Request.FORMAT_GGUF))
    refusal = await refused(gguf.read())
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == "LLAMA_CPP_NOT_CONFIGURED"
    assert "HOTLORA_LLAMA_CPP_DIR" in refusal.message
    typed = Request(name=VERSION, format=Request.FORMAT_MERGED, gguf_type=Request.GGUF_TYPE_F16)
    refusal = await refused(stage.adapters.ExportAdapterVersion(typed).read())
    assert list(refusal.violations) == ["gguf_type"]


async def test_a_cancelled_export_leaves_nothing_and_lets_the_next_one_in(stage: Stage) -> None:
    await kept(stage)
    (stage.home / "base" / "merging").write_text("HANG")
    merged = Request(name=VERSION, format=Request.FORMAT_MERGED)
    call = stage.adapters.ExportAdapterVersion(merged)
    reading = asyncio.ensure_future(call.read())
    await until((stage.home / "base" / "merging.begun").exists)
    other = await refused(stage.adapters.ExportAdapterVersion(merged).read())
    assert (other.code, other.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "EXPORT_RUNNING")

    call.cancel()
    await asyncio.wait({reading})

    await until(lambda: being_made(stage) == [])
    (stage.home / "base" / "merging").unlink()
    again = stage.adapters.ExportAdapterVersion(merged)
    assert {"README.md", "model.safetensors"} <= {piece.file.name async for piece in again}


async def test_a_merge_that_fails_is_a_fault_of_ours_and_leaves_nothing(stage: Stage) -> None:
    await kept(stage)
    (stage.home / "base" / "merging").write_text("FAIL")
    call = stage.adapters.ExportAdapterVersion(Request(name=VERSION, format=Request.FORMAT_MERGED))
    assert (await refused(call.read())).code is grpc.StatusCode.INTERNAL
    assert being_made(stage) == []


def begins(name: str, content: bytes) -> pb.ExportAdapterVersionResponse:
    """The announcement of a file."""
    digest = hashlib.sha256(content).hexdigest()
    file = pb.ExportedFile(name=name, size_bytes=len(content), sha256=digest)
    return pb.ExportAdapterVersionResponse(file=file)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", ".hidden", "", "a/b", "a\0b", "..", "file"])
def test_a_name_that_is_not_plain_or_comes_twice_never_reaches_the_disk(tmp_path: Path, name: str) -> None:
    target = tmp_path / "in" / "target"
    with Arrival(target) as arrival:
        arrival.take(begins("file", b""))
        with pytest.raises(errors.DataLoss):
            arrival.take(begins(name, b""))
    assert [path.name for path in tmp_path.rglob("*")] == ["in"]


@pytest.mark.parametrize("chunks", [[b"12"], [b"123", b"4"], [b"321"], []])
def test_a_file_that_is_not_as_announced_makes_no_directory(tmp_path: Path, chunks: list[bytes]) -> None:
    target = tmp_path / "in" / "target"
    with pytest.raises(errors.DataLoss), Arrival(target) as arrival:
        arrival.take(begins("file", b"123"))
        for chunk in chunks:
            arrival.take(pb.ExportAdapterVersionResponse(chunk=chunk))
        arrival.finish()
    assert list((tmp_path / "in").iterdir()) == []
