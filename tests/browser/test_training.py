"""The Training tab, in a real browser."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from hotlora.client import Client
from hotlora.v1.tuning_service_pb2 import TECHNIQUE_QLORA, Hyperparameters, TuningJob
from tests.browser.conftest import choose
from tests.stage.folds import unfold
from tests.stage.service import Stage
from tests.stage.trained import GOOD_ROW

pytestmark = pytest.mark.browser


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    path = tmp_path / "examples.jsonl"
    path.write_bytes(GOOD_ROW * 3)
    return path


def start(page: Page, examples: Path, adapter: str, technique: str = "LoRA") -> None:
    choose(page, examples)
    page.fill("#adapter input, #adapter textarea", adapter)
    page.get_by_label(technique, exact=True).check()
    page.click("button#start-training")


def card(page: Page, adapter: str) -> Locator:
    """The newest job of an adapter."""
    return page.locator("#jobs .job").filter(has=page.get_by_text(adapter, exact=True)).first


def job_of(client: Client, adapter: str) -> TuningJob:
    (job,) = client.list_tuning_jobs(adapter=f"adapters/{adapter}").tuning_jobs
    return job


def test_an_uploaded_file_starts_a_training_whose_progress_and_loss_are_shown(
    page: Page, stage: Stage, client: Client, examples: Path
) -> None:
    stage.gate("shown", step=4)
    start(page, examples, "shown", "QLoRA")
    expect(card(page, "shown")).to_contain_text("step 3 of 5 · loss 0.667 · 100 tok/s · 2 s left")
    expect(card(page, "shown").locator(".bar div")).to_have_attribute("style", "width:60.0%")
    expect(page.locator("#loss svg")).to_be_visible()
    expect(page.locator("#loss")).to_contain_text("validation")
    job = job_of(client, "shown")
    assert stage.uploaded(job.dataset.removeprefix("datasets/")) == [json.loads(GOOD_ROW)] * 3
    assert job.technique == TECHNIQUE_QLORA


def test_a_chosen_file_is_looked_at_before_anything_is_trained(
    page: Page, client: Client, examples: Path
) -> None:
    kept = client.list_datasets()
    with examples.open("a") as file:
        file.write('{"<b>": null}\n')
    choose(page, examples)
    findings = page.locator("#findings")
    expect(findings).to_contain_text("3 rows; 84 tokens, 18 trained")
    expect(findings).to_contain_text('line 4: the row has neither "messages" nor')
    expect(findings).to_contain_text('"<b>"')
    expect(findings.locator("mark")).to_have_text("hello<|im_end|>")
    assert client.list_datasets() == kept


def test_settings_that_are_left_empty_stay_unset_when_others_are_filled(
    page: Page, stage: Stage, client: Client, examples: Path
) -> None:
    stage.gate("sparse")
    page.get_by_role("tab", name="Training").click()
    unfold(page, "Settings (empty: default)")
    page.fill("#rank textarea, #rank input", "4")
    start(page, examples, "sparse")
    expect(card(page, "sparse").locator(".state")).to_have_text("running")
    job = job_of(client, "sparse")
    alike = client.create_tuning_job(
        dataset=job.dataset, adapter_id="sparse", hyperparameters=Hyperparameters(rank=4)
    )
    assert job.hyperparameters == alike.hyperparameters
    assert job.hyperparameters.rank == 4


def test_a_job_can_be_paused_resumed_and_cancelled(page: Page, stage: Stage, examples: Path) -> None:
    gate = stage.gate("stopped")
    start(page, examples, "stopped")
    state = card(page, "stopped").locator(".state")
    expect(page.locator("#job input")).to_have_value(re.compile("stopped · running · "))
    page.click("button#pause-job")
    expect(state).to_have_text("paused")
    page.click("button#resume-job")
    expect(state).to_have_text("running")
    page.click("button#cancel-job")
    expect(state).to_have_text("cancelled")
    assert not gate.exists()


def test_the_verdict_stands_below_the_plot_with_its_steps_marked_and_scores_on_an_axis_of_their_own(
    page: Page, stage: Stage, examples: Path
) -> None:
    stage.plan("overfitted", eval_losses=(1.0, 1.2, 1.5), task_scores=(0.25, 0.5, 0.5))
    start(page, examples, "overfitted")
    expect(page.locator("#fit")).to_contain_text("Overfitting since step 2: evaluation loss rose from 1.000")
    expect(page.locator("#loss")).to_contain_text("best step 2, overfitting since")
    expect(page.locator("#loss .legend .task-score")).to_have_text("task score (right)")
    expect(page.locator("#loss .axis.right")).to_be_visible()
    expect(page.locator("#loss svg")).to_be_visible()
