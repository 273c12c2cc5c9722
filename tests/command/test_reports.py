"""Reports of base against adapter, as a person reads them and as a program gets them."""

from pathlib import Path

import pytest

from hotlora.client import Client
from hotlora.v1.evaluation_service_pb2 import (
    AdapterEvaluation,
    ConfusionRow,
    ConfusionTable,
    EvaluationReport,
    GeneralSkill,
    ReportExample,
    ReportFigure,
)
from hotlora.v1.resources_pb2 import TASK_CLASSIFICATION, Failure
from tests.command.conftest import Hotlora
from tests.command.service import State

REPORT = EvaluationReport(
    summary="accuracy from 0.250 to 0.750 on 4 unseen rows (2 better, 0 worse).",
    task=TASK_CLASSIFICATION,
    rows=4,
    held_out_rows=5,
    seen_rows=1,
    figures=[
        ReportFigure(name="accuracy", base=0.25, adapter=0.75, higher_is_better=True),
        ReportFigure(name="macro_f1", base=0.5, adapter=0.7, higher_is_better=True, constrained=True),
    ],
    confusion_tables=[
        ConfusionTable(
            adapter=True,
            labels=["billing", "delivery"],
            rows=[ConfusionRow(counts=[2, 0, 0]), ConfusionRow(counts=[0, 1, 7])],
        )
    ],
    wins=2,
    ties=2,
    regressions=1,
    examples=[
        ReportExample(
            kind=ReportExample.KIND_WIN,
            line=7,
            prompt="Where is\x1b[31m my parcel?",
            expected="delivery",
            base_answer="",
            adapter_answer="delivery",
            adapter_credit=1.0,
        ),
        ReportExample(kind=ReportExample.KIND_REGRESSION, prompt="2 + 2?", expected="4", base_credit=1.0),
    ],
    general_skill=GeneralSkill(items=32, base_right=20, adapter_right=19, forgotten=1),
)


@pytest.fixture
def evaluations(state: State) -> State:
    """Two: one with a report, one that failed."""
    state.evaluations = {
        "evaluations/triage-1": AdapterEvaluation(
            name="evaluations/triage-1",
            state=AdapterEvaluation.STATE_SUCCEEDED,
            adapter_version="adapters/triage/versions/1",
            dataset="datasets/d0",
            from_validation_split=True,
            report=REPORT,
        ),
        "evaluations/other-1": AdapterEvaluation(
            name="evaluations/other-1",
            state=AdapterEvaluation.STATE_FAILED,
            adapter_version="adapters/other/versions/1",
            dataset="datasets/d1",
            failure=Failure(reason="ENGINE_AWAY", message="The engine was away."),
        ),
    }
    return state


@pytest.mark.usefixtures("evaluations")
def test_a_report_is_printed_with_figures_confusion_and_examples(hotlora: Hotlora) -> None:
    shown = hotlora("evaluations", "triage-1")

    assert shown.code == 0
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert "result accuracy from 0.250 to 0.750 on 4 unseen rows (2 better, 0 worse)." in lines
    assert "rows 4 of 5, 1 seen in training" in lines
    assert "accuracy 0.250 0.750 +0.500" in lines
    assert lines.index("Answered freely") < lines.index("Only labels allowed")
    assert "Adapter: RIGHT \\ ANSWERED billing delivery no label" in lines
    assert "delivery · 1 7" in lines
    assert "General skill: base 20, adapter 19 of 32 right; 1 forgotten" in lines
    assert "WIN (line 7)" in lines
    assert "REGRESSION (general skill)" in lines
    assert "base 0.00 (nothing)" in lines
    assert "\x1b" not in shown.out


@pytest.mark.usefixtures("evaluations")
def test_evaluations_are_listed_with_their_first_figure_or_why_they_failed(hotlora: Hotlora) -> None:
    listed = hotlora("evaluations")
    of_one = hotlora("evaluations", "--adapter", "triage@1", "--json")

    lines = [" ".join(line.split()) for line in listed.out.splitlines()]
    assert any(line.startswith("triage-1 triage@1 SUCCEEDED d0 accuracy 0.250 0.750") for line in lines)
    assert any(line.startswith("other-1 other@1 FAILED d1 ENGINE_AWAY") for line in lines)
    assert '"evaluations/triage-1"' in of_one.out
    assert "other" not in of_one.out


@pytest.mark.usefixtures("evaluations")
def test_a_failed_evaluation_says_why(hotlora: Hotlora) -> None:
    assert "ENGINE_AWAY: The engine was away." in hotlora("evaluations", "other-1").out


def test_a_version_is_evaluated_on_a_file_and_followed_to_its_report(
    evaluations: State, hotlora: Hotlora, rows: Path
) -> None:
    followed = hotlora("evaluate", "triage@1", "--on", str(rows))

    (request,) = evaluations.created_evaluations
    assert request.adapter_version == "adapters/triage/versions/1"
    assert request.dataset.startswith("datasets/my-rows-")
    assert followed.code == 0
    assert "accuracy from 0.250 to 0.750" in followed.out


def test_training_uploads_the_file_that_it_shall_be_evaluated_on(
    state: State, hotlora: Hotlora, rows: Path, tmp_path: Path
) -> None:
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_bytes(rows.read_bytes() * 2)

    hotlora("train", str(rows), "--adapter", "a", "--no-watch", "--evaluate-on", str(held_out))

    (job,) = state.created
    assert job.evaluation_dataset.startswith("datasets/held-out-")
    assert job.evaluation_dataset != job.dataset


def test_the_client_follows_an_evaluation_and_gives_each_creation_an_id(
    evaluations: State, address: str
) -> None:
    with Client(address) as client:
        created = client.create_evaluation("adapters/triage/versions/1")
        states = [seen.state for seen in client.watch_evaluation(created.name)]

    assert states == [AdapterEvaluation.STATE_RUNNING, AdapterEvaluation.STATE_SUCCEEDED]
    assert evaluations.created_evaluations[0].request_id
