"""The demo's main job and its report, on the real service."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from examples import demo
from examples.report import Report
from examples.triage.score import HELDOUT_PATH, TRAIN_PATH, read_rows
from hotlora.aio import AsyncClient
from hotlora.client import Client
from tests.stage.service import Question, Stage

HELD_OUT = read_rows(HELDOUT_PATH)
VERDICTS = {row.message: demo.verdict_line(row.reference) for row in HELD_OUT}


def _console() -> Console:
    return Console(file=io.StringIO(), width=200)


def _adapter_knows(question: Question) -> Sequence[str]:
    """The adapter gives every verdict right, the base chatters."""
    knows = "@" in question.model
    return (VERDICTS[question.text] if knows else "Sure! Here is the JSON you asked for:",)


@pytest.fixture
def succeeding(stage: Stage) -> Stage:
    stage.answer = _adapter_knows
    return stage


async def _run(stage: Stage) -> Report:
    async with AsyncClient(stage.address) as client:
        return await demo.main_job(client, train_path=TRAIN_PATH, held_out=HELD_OUT, console=_console())


async def test_an_adapter_that_is_proven_and_better_passes_with_every_figure(succeeding: Stage) -> None:
    report = await _run(succeeding)

    assert report.passed, report.failure
    assert (report.state, report.adapter_state) == ("SUCCEEDED", "ACTIVE")
    assert report.adapter_version.startswith("triage@")
    seconds = report.seconds
    assert seconds.submit_to_first_forward is not None
    assert seconds.submit_to_first_step is not None
    assert seconds.submit_to_succeeded is not None
    assert 0 < seconds.submit_to_first_forward <= seconds.submit_to_first_step < seconds.submit_to_succeeded
    assert seconds.succeeded_to_active is not None
    assert seconds.succeeded_to_active > 0
    assert seconds.active_to_first_token is not None
    assert seconds.active_to_first_token > 0
    assert report.verification["adapterDifference"] == pytest.approx(0.003)
    assert report.score["base"]["overall"] == 0
    assert report.score["adapter"]["overall"] == 1
    assert len(report.questions) == 60
    assert report.questions[7].message == HELD_OUT[7].message
    assert report.questions[7].adapter == report.questions[7].reference


async def test_an_adapter_that_is_no_better_fails_and_says_by_how_much(succeeding: Stage) -> None:
    succeeding.answer = lambda question: (VERDICTS[question.text],)

    report = await _run(succeeding)

    assert not report.passed
    assert report.failure == "the adapter scores 1.000, the base 1.000"


async def test_an_adapter_that_is_not_proven_fails_without_a_question_asked(succeeding: Stage) -> None:
    with Client(succeeding.address) as client:
        known = [
            one.latest_version for one in client.list_adapters().adapters if one.name.endswith("/triage")
        ]
    succeeding.engine.faults.as_base.add(f"triage@{sum(known) + 1}")

    report = await _run(succeeding)

    assert not report.passed
    assert report.adapter_state == "FAILED"
    assert report.failure.startswith("the engine answers as the base does")
    assert succeeding.questions == []


async def test_a_job_that_fails_fails_the_demo_with_its_reason(succeeding: Stage) -> None:
    succeeding.plan("triage", fail_at_step=1)

    report = await _run(succeeding)

    assert (report.passed, report.state) == (False, "FAILED")
    assert report.failure == "The loss is not a number."
    assert report.seconds.submit_to_first_step is None
    assert report.questions == ()


async def test_the_report_is_written_whole_and_tells_everything(succeeding: Stage, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "report.json"

    (await _run(succeeding)).write(path)

    written = json.loads(path.read_text())
    assert written["passed"] is True
    assert written["job"].startswith("tuningJobs/")
    assert (written["state"], written["adapter_state"]) == ("SUCCEEDED", "ACTIVE")
    assert written["adapter_version"].startswith("triage@")
    assert set(written["seconds"]) == {
        "submit_to_first_forward",
        "submit_to_first_step",
        "submit_to_succeeded",
        "succeeded_to_active",
        "active_to_first_token",
    }
    assert all(seconds > 0 for seconds in written["seconds"].values())
    assert written["verification"]["tolerance"] > written["verification"]["adapterDifference"] > 0
    assert written["score"]["adapter"]["overall"] > written["score"]["base"]["overall"] == 0
    assert [question["message"] for question in written["questions"]] == [row.message for row in HELD_OUT]
    assert all(question["base"] and question["adapter"] for question in written["questions"])
    assert list(path.parent.iterdir()) == [path]


def test_a_demo_whose_service_does_not_start_ends_with_1_and_reports_why(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "examples.demo"],
        cwd=tmp_path,
        env={**os.environ, "HOTLORA_BASE_MODEL": "/nowhere"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )

    report = json.loads((tmp_path / "runs" / "demo" / "report.json").read_text())
    assert ran.returncode == 1
    assert report["passed"] is False
    assert report["failure"].startswith("the service ended with exit code ")
    assert "/nowhere" in ran.stdout


async def test_the_terminal_shows_a_handful_of_answers_side_by_side_and_the_scores(
    succeeding: Stage,
) -> None:
    console = _console()

    demo.show(await _run(succeeding), console)

    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert shown.count("Sure! Here is the JSON") == demo.SHOWN_QUESTIONS
    assert "adapter  overall 1.000" in shown
    assert re.search(r"submit to first forward: \d+\.\d\d s", shown)
    assert "The adapter is proven and better than the base." in shown
