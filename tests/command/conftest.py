"""Fixtures of the command's tests: a service in memory, and the command run against it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hotlora.command.app import app
from hotlora.v1.adapter_service_pb2 import Adapter, AdapterVersion, Verification
from hotlora.v1.tuning_service_pb2 import (
    TECHNIQUE_LORA,
    Evaluation,
    Metrics,
    Milestone,
    StateChange,
    TuningEvent,
    TuningJob,
)
from tests.command.service import BASE_MODEL, State, serving

ROOT = Path(__file__).resolve().parents[2]
GOOD_ROW = b'{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n'


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


@pytest.fixture
def state() -> State:
    """What the service knows: a job that runs well, an adapter with one version."""
    state = State()
    job = TuningJob(
        name="tuningJobs/j0",
        state=TuningJob.STATE_RUNNING,
        adapter="adapters/triage",
        adapter_version="adapters/triage/versions/1",
        dataset="datasets/d0",
        base_model=BASE_MODEL,
        attempt=1,
    )
    state.jobs[job.name] = job
    state.events = job_events()
    version = AdapterVersion(
        name="adapters/triage/versions/1",
        model="triage@1",
        state=AdapterVersion.STATE_ACTIVE,
        technique=TECHNIQUE_LORA,
        rank=16,
        size_bytes=5_000_000,
        tuning_job=job.name,
        verification=Verification(
            tokens=128, adapter_difference=0.01, effect=0.9, trained_effect=0.91, noise=0.008, tolerance=0.05,
            seconds=2.5,
        ),
    )  # fmt: skip
    state.versions[version.name] = version
    state.version_course = [version]
    state.adapters["adapters/triage"] = Adapter(
        name="adapters/triage", base_model=BASE_MODEL, latest_version=1, active_version=1
    )
    return state


def job_events() -> list[TuningEvent]:
    """A run of four steps that ends well, sequences 1 to 9."""
    told = [
        TuningEvent(milestone=Milestone(kind=Milestone.KIND_LOADING)),
        TuningEvent(milestone=Milestone(kind=Milestone.KIND_FIRST_FORWARD)),
        *(
            TuningEvent(
                metrics=Metrics(
                    step=step, total_steps=4, loss=2.0 / step, tokens_per_second=800, eta_seconds=4 - step
                )
            )
            for step in range(1, 5)
        ),
        TuningEvent(evaluation=Evaluation(step=4, eval_loss=0.75, rows=3)),
        TuningEvent(milestone=Milestone(kind=Milestone.KIND_PUBLISHED, step=4)),
        TuningEvent(state_change=StateChange(state=TuningJob.STATE_SUCCEEDED, attempt=1)),
    ]
    for sequence, event in enumerate(told, start=1):
        event.sequence = sequence
    return told


@pytest.fixture
def address(state: State) -> Iterator[str]:
    """Where the service is."""
    with serving(state) as address:
        yield address


@pytest.fixture
def hotlora(address: str) -> Hotlora:
    """Runs the command in this process against the service."""

    def run(*arguments: str, stdin: str | None = None) -> Outcome:
        result = CliRunner().invoke(app, [*arguments], input=stdin, env={"HOTLORA_ADDRESS": address})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(code=result.exit_code, out=result.stdout, err=result.stderr)

    return run


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


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A good file of three rows."""
    path = tmp_path / "My Rows.jsonl"
    path.write_bytes(GOOD_ROW * 3)
    return path
