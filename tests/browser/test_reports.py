"""The Reports tab, in a real browser."""

import pytest
from playwright.sync_api import Page, expect

from hotlora.v1.evaluation_service_pb2 import AdapterEvaluation
from tests.browser.drawn_report import REPORT
from tests.browser.stage import Stage

pytestmark = pytest.mark.browser


def test_reports_are_shown_with_figures_confusion_and_examples_and_a_running_one_says_how_far_it_is(
    page: Page, stage: Stage
) -> None:
    stage.evaluations = [
        AdapterEvaluation(
            name="evaluations/support-2",
            state=AdapterEvaluation.STATE_RUNNING,
            done_answers=12,
            total_answers=40,
        ),
        AdapterEvaluation(
            name="evaluations/support-1", state=AdapterEvaluation.STATE_SUCCEEDED, report=REPORT
        ),
    ]
    stage.evaluations[1].report.examples[0].expected = "<b>delivery</b>"
    page.get_by_role("tab", name="Reports").click()
    expect(page.locator("#report")).to_contain_text("12 of 40 answers")

    page.locator("#evaluation input").click()
    page.get_by_role("option", name="support-1 · finished").click()

    expect(page.locator("#report .summary")).to_contain_text("accuracy from 0.250 to 0.750")
    expect(page.locator("#report td.better").first).to_have_text("0.750")
    expect(page.locator("#report .confusion caption")).to_have_text("adapter")
    expect(page.locator("#report .confusion td.wrong")).to_have_text("7")
    expect(page.locator("#report .examples td.win")).to_have_text("Better")
    expect(page.locator("#report .examples td.regression")).to_have_text("Regression")
    expect(page.locator("#report .examples")).to_contain_text("<b>delivery</b>")
    expect(page.locator("#report")).to_contain_text("base 20, adapter 19 of 32 right, 1 forgotten")
