"""The Training tab, in a real browser."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from hotlora.v1.tuning_service_pb2 import (
    TECHNIQUE_QLORA,
    Evaluation,
    Fit,
    Metrics,
    TuningEvent,
    TuningJob,
)
from tests.browser.stage import Stage

pytestmark = pytest.mark.browser


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    path = tmp_path / "examples.jsonl"
    path.write_text('{"messages": []}\n' * 3)
    return path


def start(page: Page, examples: Path, adapter: str) -> None:
    page.get_by_role("tab", name="Training").click()
    page.set_input_files("#examples input[type=file]", str(examples))
    expect(page.locator("#examples")).to_contain_text("examples")
    page.fill("#adapter input, #adapter textarea", adapter)
    page.get_by_label("QLoRA").check()
    page.click("button#start-training")


def test_an_uploaded_file_starts_a_training_whose_progress_and_loss_are_shown(
    page: Page, stage: Stage, examples: Path
) -> None:
    stage.events = [
        TuningEvent(sequence=1, metrics=Metrics(step=1, total_steps=10, loss=2.0)),
        TuningEvent(sequence=2, metrics=Metrics(step=2, total_steps=10, loss=1.5)),
        TuningEvent(sequence=3, evaluation=Evaluation(step=2, eval_loss=1.7, rows=4)),
    ]
    start(page, examples, "support")
    expect(page.locator("#jobs")).to_contain_text("step 5 of 10")
    expect(page.locator("#jobs")).to_contain_text("1 min 5 s left")
    expect(page.locator("#jobs .bar div")).to_have_attribute("style", "width:50.0%")
    expect(page.locator("#loss canvas, #loss svg").first).to_be_visible()
    expect(page.locator("#loss")).to_contain_text("validation")
    assert stage.uploads == [examples.read_bytes()]
    (request,) = stage.created
    assert (request.adapter_id, request.dataset) == ("support", "datasets/uploaded")
    assert request.technique == TECHNIQUE_QLORA
    assert not request.hyperparameters.HasField("rank")


def test_a_chosen_file_is_looked_at_before_anything_is_trained(
    page: Page, stage: Stage, examples: Path
) -> None:
    page.get_by_role("tab", name="Training").click()
    page.set_input_files("#examples input[type=file]", str(examples))
    findings = page.locator("#findings")
    expect(findings).to_contain_text("3 rows; 90 tokens, 30 trained")
    expect(findings).to_contain_text("line 7: the row is <b>null</b>. Write one.")
    expect(findings.locator("mark")).to_have_text("Yes.<|end|>")
    assert stage.uploads == []


def test_settings_that_are_left_empty_stay_unset_when_others_are_filled(
    page: Page, stage: Stage, examples: Path
) -> None:
    page.get_by_role("tab", name="Training").click()
    page.get_by_text("Settings (empty: default)").click()
    page.fill("#rank textarea, #rank input", "8")
    start(page, examples, "support")
    expect(page.locator("#jobs .state")).to_have_text("running")
    (request,) = stage.created
    assert request.hyperparameters.rank == 8
    assert not request.hyperparameters.HasField("learning_rate")
    assert not request.hyperparameters.HasField("epochs")


@pytest.mark.parametrize(
    ("rank", "words"), [("many", "Rank: 'many' is not a whole number"), ("1" * 12, "far outside its range")]
)
def test_a_setting_that_cannot_be_is_a_toast_that_names_it(
    page: Page, stage: Stage, examples: Path, rank: str, words: str
) -> None:
    page.get_by_role("tab", name="Training").click()
    page.get_by_text("Settings (empty: default)").click()
    page.fill("#rank textarea, #rank input", rank)
    start(page, examples, "support")
    expect(page.locator(".toast-body")).to_contain_text(words)
    assert stage.uploads == []


def test_a_refused_file_is_a_toast_that_names_the_line(page: Page, stage: Stage, examples: Path) -> None:
    stage.refuse_line = 2
    start(page, examples, "support")
    expect(page.locator(".toast-body")).to_contain_text("line 2: not JSON; write one object a line")
    assert stage.created == []


def test_a_refused_training_leaves_no_dataset_behind(page: Page, stage: Stage, examples: Path) -> None:
    stage.refuse_job = "rank 400 is above the engine's limit 64"
    start(page, examples, "support")
    expect(page.locator(".toast-body")).to_contain_text(stage.refuse_job)
    assert len(stage.uploads) == 1
    assert stage.deleted == ["datasets/uploaded"]


def test_a_file_of_2_gb_is_refused_by_the_page_itself(page: Page, stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.truncate(2 << 30)  # sparse: it takes no room
    page.get_by_role("tab", name="Training").click()
    page.set_input_files("#examples input[type=file]", str(path))
    expect(page.locator(".toast-body")).to_contain_text("exceed the maximum allowed size of 512")
    assert stage.uploads == []


def test_a_job_can_be_cancelled(page: Page, stage: Stage, examples: Path) -> None:
    start(page, examples, "support")
    expect(page.locator("#job input")).to_have_value("support · running · job-1")
    page.click("button#cancel-job")
    expect(page.locator("#jobs .state")).to_have_text("cancelled")
    assert stage.cancelled == ["tuningJobs/job-1"]


def test_a_job_can_be_paused_and_resumed(page: Page, stage: Stage, examples: Path) -> None:
    start(page, examples, "support")
    expect(page.locator("#job input")).to_have_value("support · running · job-1")
    page.click("button#pause-job")
    expect(page.locator("#jobs .state")).to_have_text("paused")
    page.click("button#resume-job")
    expect(page.locator("#jobs .state")).to_have_text("queued")


def test_the_verdict_stands_below_the_plot_and_its_steps_are_marked(
    page: Page, stage: Stage, examples: Path
) -> None:
    curve = [(10, 2.0, 1.5), (20, 1.0, 1.0), (30, 0.7, 1.2), (40, 0.4, 1.5)]
    told = []
    for step, loss, eval_loss in curve:
        told.append(TuningEvent(metrics=Metrics(step=step, total_steps=40, loss=loss)))
        evaluation = Evaluation(step=step, eval_loss=eval_loss, rows=4, best_step=min(step, 20))
        told.append(TuningEvent(evaluation=evaluation))
    sentence = "Overfitting since step 20: evaluation loss rose from 1.000 to 1.500."
    fit = Fit(verdict=Fit.VERDICT_OVERFITTING, step=40, since_step=20, best_step=20, sentence=sentence)
    stage.events = [*told, TuningEvent(fit=fit)]
    for sequence, event in enumerate(stage.events, start=1):
        event.sequence = sequence
    # The page follows each job once, and the service never gives a name twice: this must not be job-1 again.
    stage.jobs = [TuningJob(name="tuningJobs/job-1", state=TuningJob.STATE_SUCCEEDED, adapter="adapters/old")]
    start(page, examples, "support")
    expect(page.locator("#fit")).to_have_text(sentence, timeout=30_000)
    expect(page.locator("#loss")).to_contain_text("best step 20, overfitting since", timeout=30_000)
    expect(page.locator("#loss canvas, #loss svg").first).to_be_visible()
