"""Fixtures of the command's tests: the real service, and the command run against it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hotlora.client import Client
from hotlora.command.app import app
from hotlora.v1.tuning_service_pb2 import TuningJob
from tests.stage.service import Stage, staged
from tests.stage.trained import GOOD_ROW, train

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run of the command ended."""

    code: int
    out: str
    err: str

    def documents(self) -> list[dict[str, object]]:
        """What it wrote, line by line, as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


Hotlora = Callable[..., Outcome]


@pytest.fixture(scope="session")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One service for all tests; each trains adapters of its own."""
    with staged(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture(scope="session")
def support(_stage: Stage) -> TuningJob:
    """The job that made support@1, which is ACTIVE; for tests that only look and ask."""
    return train(_stage, "support")


@pytest.fixture
def stage(_stage: Stage) -> Iterator[Stage]:
    """The service, whose doubles behave until the test says otherwise."""
    yield _stage
    _stage.forget()


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return count(1)


@pytest.fixture
def adapter(_numbers: Iterator[int]) -> str:
    """An adapter that nobody trained yet."""
    return f"a{next(_numbers)}"


@pytest.fixture
def address(stage: Stage) -> str:
    """Where the service is."""
    return stage.address


def until(client: Client, job: str, state: TuningJob.State) -> None:
    """Wait until a job is in a state."""
    for update in client.watch_tuning_job(job):
        if state in {update.tuning_job.state, update.event.state_change.state}:
            return


def in_process(address: str) -> Hotlora:
    """How to run the command in this process against a service."""

    def run(*arguments: str, stdin: str | None = None) -> Outcome:
        result = CliRunner().invoke(app, [*arguments], input=stdin, env={"HOTLORA_ADDRESS": address})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(code=result.exit_code, out=result.stdout, err=result.stderr)

    return run


@pytest.fixture
def hotlora(address: str) -> Hotlora:
    """Runs the command in this process against the service."""
    return in_process(address)


@pytest.fixture
def hotlora_process(address: str) -> Hotlora:
    """Runs the command as a process of its own against the service."""

    def run(*arguments: str, stdin: str | None = None) -> Outcome:
        result = subprocess.run(
            [sys.executable, "-m", "hotlora.command", *arguments],
            input=stdin or "",
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "HOTLORA_ADDRESS": address},
            check=False,
        )
        return Outcome(code=result.returncode, out=result.stdout, err=result.stderr)

    return run


@pytest.fixture(scope="session")
def _without_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("without-engine")
    with staged(directory, with_engine=False, more_bases=["other-base"]) as stage:
        yield stage


@pytest.fixture
def without_engine(_without_engine: Stage) -> Iterator[Stage]:
    """A service whose engines are not there, of two base models."""
    yield _without_engine
    _without_engine.run(_without_engine.engine.stop())


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A good file of three rows."""
    path = tmp_path / "My Rows.jsonl"
    path.write_bytes(GOOD_ROW * 3)
    return path
