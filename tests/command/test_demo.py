"""The demo's main job and its report, against a service in memory."""

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from examples import demo
from examples.report import Report, Timings
from examples.triage.score import HELDOUT_PATH, TRAIN_PATH, read_rows
from hotlora.aio import AsyncClient
from hotlora.v1.adapter_service_pb2 import AdapterVersion
from hotlora.v1.chat_service_pb2 import ChatRequest, ChatResponse
from hotlora.v1.resources_pb2 import Failure
from hotlora.v1.tuning_service_pb2 import StateChange, TuningEvent, TuningJob
from tests.command.service import BASE_MODEL, State, course

HELD_OUT = read_rows(HELDOUT_PATH)
VERDICTS = {row.message: demo.verdict_line(row.reference) for row in HELD_OUT}


def _console() -> Console:
    return Console(file=io.StringIO(), width=200)


def _adapter_knows(request: ChatRequest) -> Iterator[ChatResponse]:
    """The adapter gives every verdict right, the base chatters."""
    text = (
        VERDICTS[request.messages[-1].content] if request.model else "Sure! Here is the JSON you asked for:"
    )
    yield ChatResponse(delta=text, model=request.model or BASE_MODEL, completion_tokens=12)


@pytest.fixture
def succeeding(state: State) -> State:
    version = state.versions["adapters/triage/versions/1"]
    version.active_time.FromSeconds(1_000_063)
    state.version_course = course(version, AdapterVersion.STATE_PENDING, AdapterVersion.STATE_ACTIVE)
    state.answer = _adapter_knows
    return state


async def _run(address: str) -> Report:
    async with AsyncClient(address) as client:
        return await demo.main_job(client, train_path=TRAIN_PATH, held_out=HELD_OUT, console=_console())


async def test_an_adapter_that_is_proven_and_better_passes_with_every_figure(
    succeeding: State, address: str
) -> None:
    report = await _run(address)

    assert report.passed, report.failure
    assert (report.state, report.adapter_state, report.adapter_version) == ("SUCCEEDED", "ACTIVE", "triage@1")
    assert report.seconds.submit_to_first_forward == 2
    assert report.seconds.submit_to_first_step == 5
    assert report.seconds.submit_to_succeeded == 60
    assert report.seconds.succeeded_to_active == 3
    assert report.seconds.active_to_first_token == pytest.approx(time.time() - 1_000_063, abs=120)
    assert report.verification["adapterDifference"] == 0.01
    assert report.score["base"]["overall"] == 0
    assert report.score["adapter"]["overall"] == 1
    assert len(report.questions) == 60
    assert report.questions[7].message == HELD_OUT[7].message
    assert report.questions[7].adapter == report.questions[7].reference
    assert next(iter(succeeding.uploaded.values())) == TRAIN_PATH.read_bytes()


async def test_an_adapter_that_is_no_better_fails_and_says_by_how_much(
    succeeding: State, address: str
) -> None:
    succeeding.answer = lambda request: iter(
        [ChatResponse(delta=VERDICTS[request.messages[-1].content], completion_tokens=12)]
    )

    report = await _run(address)

    assert not report.passed
    assert report.failure == "the adapter scores 1.000, the base 1.000"


async def test_an_adapter_that_is_not_proven_fails_without_a_question_asked(
    succeeding: State, address: str
) -> None:
    failure = Failure(reason="NO_EFFECT", message="The engine answers as the base does.")
    version = succeeding.versions["adapters/triage/versions/1"]
    succeeding.version_course = course(version, AdapterVersion.STATE_FAILED, failure=failure)

    report = await _run(address)

    assert not report.passed
    assert report.adapter_state == "FAILED"
    assert report.failure == "The engine answers as the base does."
    assert succeeding.chats == []


async def test_a_job_that_fails_fails_the_demo_with_its_reason(succeeding: State, address: str) -> None:
    failure = Failure(reason="OUT_OF_MEMORY", message="The machine has too little memory.")
    change = StateChange(state=TuningJob.STATE_FAILED, attempt=1, failure=failure)
    succeeding.events = [TuningEvent(sequence=1, state_change=change)]

    report = await _run(address)

    assert (report.passed, report.state) == (False, "FAILED")
    assert report.seconds == Timings()


def test_the_report_is_written_whole_and_tells_everything(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "report.json"

    Report(job="tuningJobs/j1", seconds=Timings(submit_to_first_step=4.5)).judged().write(path)

    written = json.loads(path.read_text())
    assert written["passed"] is False
    assert written["job"] == "tuningJobs/j1"
    assert written["seconds"]["submit_to_first_step"] == 4.5
    assert written["failure"].startswith("the job is unknown; the adapter is not there")
    assert list(path.parent.iterdir()) == [path]


async def test_the_terminal_shows_a_handful_of_answers_side_by_side_and_the_scores(
    succeeding: State, address: str
) -> None:
    console = _console()

    demo.show(await _run(address), console)

    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert shown.count("Sure! Here is the JSON") == demo.SHOWN_QUESTIONS
    assert "adapter  overall 1.000" in shown
    assert "submit to first forward: 2.00 s" in shown
    assert "The adapter is proven and better than the base." in shown
