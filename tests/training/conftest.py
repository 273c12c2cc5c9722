"""What the trainer's tests share: tiny bases, jobs, and a channel that remembers."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch

from tests.training.tiny import build_base, write_rows
from trainer.channel import Channel
from trainer.config import BaseModel, Hyperparameters, JobFile, Objective, Technique
from trainer.events import TrainerEvent, decode

Bases = Callable[[str], Path]
Event = TypeVar("Event", bound=TrainerEvent)
Jobs = Callable[..., JobFile]


class Recorder:
    """Keeps every event of a run, and hands each to `heard` as it comes."""

    def __init__(self, heard: Callable[[Channel, TrainerEvent], None] = lambda channel, event: None) -> None:
        self.events: list[TrainerEvent] = []
        self._heard = heard
        self.channel = Channel(self._write)

    def _write(self, line: bytes) -> None:
        event = decode(line)
        self.events.append(event)
        self._heard(self.channel, event)

    def of(self, kind: type[Event]) -> list[Event]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny products only wait for each other on several threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    """Directory of a tiny base by the name of its family, built once."""
    built: dict[str, Path] = {}

    def base_of(family: str) -> Path:
        if family not in built:
            built[family] = build_base(tmp_path_factory.mktemp(family), family)
        return built[family]

    return base_of


@pytest.fixture(scope="session")
def rows_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 24 short rows."""
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl")


@pytest.fixture
def make_job(base_of: Bases, rows_path: Path, tmp_path: Path) -> Jobs:
    """A job below the test's own directory; keyword arguments are hyperparameters."""

    def make_job(
        family: str = "llama",
        *,
        technique: Technique = Technique.LORA,
        objective: Objective = Objective.SUPERVISED,
        job_id: str = "job",
        attempt: int = 1,
        dataset: Path = rows_path,
        **settings: object,
    ) -> JobFile:
        chosen = {"rank": 4, "alpha": 8.0, "batch_size": 4, "max_steps": 6, "learning_rate": 5e-3, **settings}
        return JobFile(
            job_id=job_id,
            attempt=attempt,
            adapter_id="tiny",
            base_model=BaseModel(name=f"tiny-{family}", path=base_of(family), revision="sha256:0"),
            dataset_path=dataset,
            dataset_sha256=hashlib.sha256(dataset.read_bytes()).hexdigest(),
            technique=technique,
            objective=objective,
            hyperparameters=Hyperparameters(**chosen),  # type: ignore[arg-type]  # tests name fields freely
            work_path=tmp_path / "work" / job_id,
            artifacts_path=tmp_path / "artifacts",
        )

    return make_job
