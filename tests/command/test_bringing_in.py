"""The command and both clients bring data in, against the real service without engine and trainer."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hotlora import errors
from hotlora.aio import AsyncClient
from hotlora.command.app import app
from hotlora.v1.dataset_service_pb2 import HubSplit
from service.datasets import Hub, LocalFiles
from tests.contract.stage import GOOD_LINE, Stage, running
from tests.contract.test_imports import OFFLINE


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
