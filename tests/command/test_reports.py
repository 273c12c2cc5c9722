"""Reports of base against adapter, as a person reads them and as a program gets them."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from hotlora.client import Client
from hotlora.v1.adapter_service_pb2 import AdapterVersion
from hotlora.v1.evaluation_service_pb2 import AdapterEvaluation
from service.evaluation.general_skill import ITEMS
from tests.command.conftest import Hotlora, train
from tests.stage.service import Question, Stage

TRAINED = [(f"message {number}", ("billing", "delivery")[number % 2]) for number in range(8)]
HELD_OUT = [
    ("I paid twice", "billing"),
    ("The invoice is wrong", "billing"),
    ("Where is\x1b[31m my parcel?", "delivery"),
    ("It never came", "delivery"),
    TRAINED[0],
]
BASE_KNOWS = {"The invoice is wrong": "billing", ITEMS[0].question: ITEMS[0].accepted[0]}
ADAPTER_KNOWS = {message: label for message, label in HELD_OUT if message != "It never came"}


def write(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """A file of messages with their labels."""
    lines = [json.dumps({"prompt": message, "completion": label}) + "\n" for message, label in rows]
    path.write_text("".join(lines))
    return path


def answer(question: Question) -> Sequence[str]:
    """The adapter knows three of four messages; the base one, and the first general question besides."""
    knows = ADAPTER_KNOWS if "@" in question.model else BASE_KNOWS
    return (knows.get(question.text, ""),)


@pytest.fixture(scope="module")
def labelled(_stage: Stage) -> str:
    """An adapter that was trained on messages with labels, and whose training rows are gone."""
    with Client(_stage.address) as client:
        path = write(_stage.home / "labelled.jsonl", TRAINED)
        dataset = client.upload_dataset(path, dataset_id="labelled")
        job = client.create_tuning_job(dataset=dataset.name, adapter_id="labelled")
        for _ in client.watch_tuning_job(job.name):
            pass
        *_, version = client.watch_adapter_version(client.get_tuning_job(job.name).adapter_version)
        assert version.state == AdapterVersion.STATE_ACTIVE
    return "labelled@1"


@pytest.fixture
def held_out(hotlora: Hotlora, tmp_path: Path) -> str:
    """A dataset of five messages, one of which training saw."""
    path = write(tmp_path / "held-out.jsonl", HELD_OUT)
    hotlora("datasets", "upload", str(path), "--id", "held-out", "--task", "classification")
    return "datasets/held-out"


def test_a_version_is_evaluated_and_its_report_has_figures_confusion_and_examples(
    stage: Stage, hotlora: Hotlora, labelled: str, held_out: str
) -> None:
    stage.answer = answer

    followed = hotlora("evaluate", labelled, "--on", held_out)

    assert followed.code == 0, followed.out
    lines = [" ".join(line.split()) for line in followed.out.splitlines()]
    summary = "accuracy from 0.250 to 0.750 on 4 unseen rows (2 better, 0 worse)"
    assert f"result {summary}; general skill 1 to 0 of 32." in lines
    assert "rows 4 of 5, 1 seen in training" in lines
    assert "accuracy 0.250 0.750 +0.500" in lines
    assert lines.index("Answered freely") < lines.index("Only labels allowed")
    assert "Adapter: RIGHT \\ ANSWERED billing delivery no label" in lines
    assert "delivery · 1 1" in lines
    assert "General skill: base 1, adapter 0 of 32 right; 1 forgotten" in lines
    assert "WIN (line 1)" in lines
    assert "REGRESSION (general skill)" in lines
    assert "base 0.00 (nothing)" in lines
    assert "\x1b" not in followed.out


def test_evaluations_are_listed_with_their_first_figure_or_why_they_failed(
    stage: Stage, hotlora: Hotlora, labelled: str, held_out: str, adapter: str
) -> None:
    stage.answer = answer
    hotlora("evaluate", labelled, "--on", held_out)
    hotlora("datasets", "delete", train(stage, adapter).dataset)
    failed = hotlora("evaluate", f"{adapter}@1")

    listed = hotlora("evaluations")
    of_one = hotlora("evaluations", "--adapter", labelled, "--json")

    assert failed.code == 1
    assert "DATASET_GONE: a dataset that it needs was deleted" in failed.out
    lines = [" ".join(line.split()) for line in listed.out.splitlines()]
    assert any(" labelled@1 SUCCEEDED held-out accuracy 0.250 0.750" in line for line in lines)
    assert any(f" {adapter}@1 FAILED " in line and "DATASET_GONE" in line for line in lines)
    assert "labelled" in of_one.out
    assert f"{adapter}@1" not in of_one.out


def test_training_uploads_the_file_that_it_shall_be_evaluated_on(
    hotlora: Hotlora, rows: Path, tmp_path: Path, adapter: str
) -> None:
    other = write(tmp_path / "other.jsonl", HELD_OUT)

    run = hotlora(
        "train", str(rows), "--adapter", adapter, "--no-watch", "--json", "--evaluate-on", str(other)
    )

    (job,) = run.documents()
    assert str(job["evaluationDataset"]).startswith("datasets/other-")
    assert job["evaluationDataset"] != job["dataset"]


def test_the_client_follows_an_evaluation_and_gives_each_creation_an_id(
    stage: Stage, labelled: str, held_out: str
) -> None:
    version = f"adapters/{labelled.replace('@', '/versions/')}"
    with Client(stage.address, new_id=lambda: "evaluated-once") as client:
        created, again = (client.create_evaluation(version, dataset=held_out) for _ in range(2))
        states = [seen.state for seen in client.watch_evaluation(created.name)]

    assert again.name == created.name
    assert states[-1] == AdapterEvaluation.STATE_SUCCEEDED
