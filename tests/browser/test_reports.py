"""The Reports tab, in a real browser."""

import re

import pytest
from playwright.sync_api import Page, expect

from hotlora.client import Client
from hotlora.v1.dataset_service_pb2 import UploadHeader
from hotlora.v1.resources_pb2 import TASK_CLASSIFICATION
from tests.stage.service import Stage
from tests.stage.trained import HELD_OUT, TRAINED, knows_labels, train, write_labelled

RIGHTMOST_FIELD = """Math.max(
    ...[...document.querySelectorAll("input, textarea, button")].map(it => it.getBoundingClientRect().right)
)"""
"""What sticks out of its frame is cut, not scrolled to."""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def held_out(_stage: Stage) -> str:
    """A dataset that labelled@1 was evaluated on, which knows more of it than its base does."""
    train(_stage, "labelled", write_labelled(_stage.home / "labelled.jsonl", TRAINED))
    _stage.answer = knows_labels
    with Client(_stage.address) as client:
        path = write_labelled(_stage.home / "held-out.jsonl", HELD_OUT)
        dataset = client.upload_dataset(path, wishes=UploadHeader(task=TASK_CLASSIFICATION))
        evaluation = client.create_evaluation("adapters/labelled/versions/1", dataset=dataset.name)
        for _ in client.watch_evaluation(evaluation.name):
            pass
    return dataset.name


def test_reports_are_shown_with_figures_confusion_and_examples_and_a_running_one_says_how_far_it_is(
    held_out: str, page: Page, stage: Stage, client: Client
) -> None:
    stage.hold("labelled@1")
    running = client.create_evaluation("adapters/labelled/versions/1", dataset=held_out)
    page.get_by_role("tab", name="Reports").click()
    expect(page.locator("#report")).to_contain_text(re.compile(r"\d+ of \d+ answers"))
    page.locator("#evaluation input").click()
    page.get_by_role("option", name="labelled-1 · finished").click()

    expect(page.locator("#report .summary")).to_contain_text("accuracy from 0.250 to 0.750")
    expect(page.locator("#report td.better").first).to_have_text("0.750")
    expect(page.locator("#report .confusion caption").first).to_have_text("base")
    expect(page.locator("#report .confusion td.wrong").first).to_have_text("1")
    expect(page.locator("#report .examples td.win").first).to_have_text("Better")
    expect(page.locator("#report .examples td.regression").first).to_have_text("Regression")
    expect(page.locator("#report .examples")).to_contain_text("<b>parcel</b>")
    expect(page.locator("#report")).to_contain_text("base 1, adapter 0 of 32 right, 1 forgotten")
    stage.release()
    for _ in client.watch_evaluation(running.name):
        pass


def test_training_and_reports_fit_a_phone_without_scrolling_sideways(
    held_out: str, phone: Page, stage: Stage, client: Client
) -> None:
    adapter = f"{'long-' * 12}x"
    stage.gate(adapter)
    client.create_tuning_job(dataset=held_out, adapter_id=adapter)
    for tab, filled in (
        ("Training", f"#jobs .job:has-text('{adapter}')"),
        ("Reports", "#report .examples"),
    ):
        phone.get_by_role("tab", name=tab).click()
        expect(phone.locator(filled).first).to_be_visible()
        for fold in phone.locator("button.label-wrap:visible").all():
            fold.click()
            expect(fold).to_have_class(re.compile("open"))
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390
        assert phone.evaluate(RIGHTMOST_FIELD) <= 390
