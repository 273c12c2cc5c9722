"""The command and both clients bring data in, against the real service without engine and trainer."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from hotlora import errors
from hotlora.aio import AsyncClient
from hotlora.command.app import app
from hotlora.v1 import dataset_service_pb2 as pb
from hotlora.v1 import tuning_service_pb2 as tuning_pb
from hotlora.v1.dataset_service_pb2 import HubSplit
from service.datasets import Hub, LocalFiles
from tests.contract.stage import GOOD_LINE, Stage, running
from tests.contract.test_imports import OFFLINE
from tests.contract.training import run_to_success


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A running service."""
    async with running(tmp_path / "home") as stage:
        yield stage


@pytest.fixture(autouse=True)
def log(tmp_path: Path) -> Iterator[None]:
    """Where the service speaks: within this process, standard output is the command's."""
    with (tmp_path / "log").open("w") as stream:
        structlog.configure(logger_factory=structlog.WriteLoggerFactory(file=stream))
        yield
        structlog.reset_defaults()


async def hotlora(stage: Stage, *arguments: str) -> tuple[int, str]:
    """Runs the command against the service: how it ended, and what it wrote."""
    environment = {"HOTLORA_ADDRESS": f"127.0.0.1:{stage.server.port}"}
    result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments], env=environment)
    return result.exit_code, result.output


async def test_a_path_of_the_services_machine_is_imported_by_command(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(GOOD_LINE * 2)
    async with running(tmp_path / "home", local_files=LocalFiles([tmp_path.resolve()])) as stage:
        path = str(tmp_path.resolve() / "rows.jsonl")
        code, written = await hotlora(stage, "datasets", "import", path, "--json")
        dataset = json.loads(written)
        assert (code, dataset["rows"], dataset["displayName"]) == (0, 2, path)
        code, written = await hotlora(stage, "datasets", "import", "/etc/passwd")
        assert code == 2
        assert "local_path: must lead to a file below" in written


async def test_a_split_of_the_hub_is_imported_by_command_and_by_client(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "shop" / "talks"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_bytes(b'{"q": "Is it open?", "a": "Yes."}\n' * 3)
    hub = Hub(directory=tmp_path / "hub", environment=OFFLINE)
    async with running(tmp_path / "home", hub=hub) as stage:
        code, written = await hotlora(
            stage,
            *("datasets", "import", "hf:shop/talks", "--split", "test", "--max-rows", "2", "--id", "talks"),
            *("--map", "prompt=q", "--map", "completion=a"),
        )
        assert (code, "datasets/talks: 2 rows" in written) == (0, True), written
        async with AsyncClient(f"127.0.0.1:{stage.server.port}") as client:
            with pytest.raises(errors.NotFound, match="it has test"):
                await client.import_dataset(HubSplit(repository="shop/talks"))


def test_a_split_of_a_path_is_refused() -> None:
    result = CliRunner().invoke(app, ["datasets", "import", "/a/file.jsonl", "--split", "test"])
    assert result.exit_code == 2
    assert "belong to hf:OWNER/NAME" in result.output


QUESTIONS = b'{"q": "Is it open?", "a": "yes"}\n{"q": "Is it far?", "a": "no"}\n'
COLUMNS = ("--map", "prompt=q", "--map", "completion=a")


async def test_training_reads_its_file_as_it_is_told_to(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_bytes(QUESTIONS + b"oops\n")
    train = ("train", str(path), "--adapter", "a", "--no-watch", *COLUMNS, "--drop-bad-rows")
    code, written = await hotlora(stage, *train)
    assert code == 0, written
    code, written = await hotlora(stage, *train, "--task", "classification")
    assert code == 0, written
    listed = (await stage.datasets.ListDatasets(pb.ListDatasetsRequest())).datasets
    labelled, plain = [await stage.datasets.GetDataset(pb.GetDatasetRequest(name=one.name)) for one in listed]
    assert (plain.rows, list(plain.labels)) == (2, [])
    assert (labelled.rows, list(labelled.labels)) == (2, ["no", "yes"]), (
        "read otherwise, it is another dataset"
    )


async def test_a_plan_reads_its_file_as_it_is_told_to(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_bytes(QUESTIONS)
    code, written = await hotlora(stage, "plan", str(path), *COLUMNS, "--json")
    assert (code, json.loads(written.splitlines()[-1])["data"]["rows"]) == (0, "2")


async def test_how_a_file_is_read_is_not_asked_of_a_dataset_that_is_there(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    for command in (("train", "datasets/rows", "--adapter", "a"), ("plan", "datasets/rows")):
        code, written = await hotlora(stage, *command, "--task", "classification")
        assert code == 2
        assert "belong to a file that is read" in written


async def test_a_file_in_a_folder_called_datasets_is_a_file(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "datasets").mkdir(exist_ok=True)
    (tmp_path / "datasets" / "mine.jsonl").write_bytes(GOOD_LINE)
    monkeypatch.chdir(tmp_path)
    code, written = await hotlora(stage, "train", "datasets/mine.jsonl", "--adapter", "a", "--no-watch")
    assert code == 0, written
    job = await stage.tuning.GetTuningJob(tuning_pb.GetTuningJobRequest(name="tuningJobs/job-1"))
    assert job.dataset.startswith("datasets/mine-")


async def test_a_training_from_the_hub_is_one_command(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "shop" / "talks"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_bytes(QUESTIONS)
    hub = Hub(directory=tmp_path / "hub", environment=OFFLINE)
    async with running(tmp_path / "home", hub=hub) as stage:
        code, written = await hotlora(
            stage, "train", "hf:shop/talks", "--adapter", "a", "--no-watch", *COLUMNS, "--dataset-id", "talks"
        )
        assert code == 0, written
        job = await stage.tuning.GetTuningJob(tuning_pb.GetTuningJobRequest(name="tuningJobs/job-1"))
        assert job.dataset == "datasets/talks"


async def test_a_training_that_goes_on_with_a_version_keeps_its_technique_unless_told(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    await stage.job(technique=tuning_pb.TECHNIQUE_QLORA)
    await run_to_success(stage)
    code, written = await hotlora(
        stage, "train", "datasets/rows", "--adapter", "a", "--start-from", "support@1", "--no-watch", "--json"
    )
    assert (code, json.loads(written)["technique"]) == (0, "TECHNIQUE_QLORA")
    async with AsyncClient(f"127.0.0.1:{stage.server.port}") as client:
        first = "adapters/support/versions/1"
        job = await client.create_tuning_job(dataset="datasets/rows", adapter_id="b", start_version=first)
        assert job.technique == tuning_pb.TECHNIQUE_QLORA
