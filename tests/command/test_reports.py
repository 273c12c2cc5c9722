"""Reports of base against adapter, as a person reads them and as a program gets them."""

from pathlib import Path

import pytest

from hotlora.client import Client
from hotlora.v1.evaluation_service_pb2 import AdapterEvaluation
from tests.command.conftest import Hotlora
from tests.stage.service import Stage
from tests.stage.trained import HELD_OUT, TRAINED, knows_labels, train, write_labelled


@pytest.fixture(scope="module")
def labelled(_stage: Stage) -> str:
    """An adapter that was trained on messages with labels."""
    train(_stage, "labelled", write_labelled(_stage.home / "labelled.jsonl", TRAINED))
    return "labelled@1"


@pytest.fixture
def held_out(hotlora: Hotlora, tmp_path: Path) -> str:
    """A dataset of five messages, one of which training saw."""
    path = write_labelled(tmp_path / "held-out.jsonl", HELD_OUT)
    hotlora("datasets", "upload", str(path), "--id", "held-out", "--task", "classification")
    return "datasets/held-out"


def test_a_version_is_evaluated_and_its_report_has_figures_confusion_and_examples(
    stage: Stage, hotlora: Hotlora, labelled: str, held_out: str
) -> None:
    stage.answer = knows_labels

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
    stage.answer = knows_labels
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
    other = write_labelled(tmp_path / "other.jsonl", HELD_OUT)

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
