"""The tabs beside Compare on a phone, in a real browser."""

import pytest
from playwright.sync_api import Browser, expect

from hotlora.v1.evaluation_service_pb2 import AdapterEvaluation
from hotlora.v1.tuning_service_pb2 import TuningJob
from tests.browser.drawn_report import REPORT
from tests.browser.stage import Stage

pytestmark = pytest.mark.browser


def test_training_and_reports_fit_a_phone_without_scrolling_sideways(
    browser: Browser, stage: Stage, url: str
) -> None:
    # The page follows each job once: no other test may have one of this name.
    stage.jobs = [
        TuningJob(name="tuningJobs/phone", state=TuningJob.STATE_RUNNING, adapter=f"adapters/{'long-' * 12}x")
    ]
    stage.evaluations = [
        AdapterEvaluation(
            name="evaluations/support-1", state=AdapterEvaluation.STATE_SUCCEEDED, report=REPORT
        )
    ]
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, device_scale_factor=2, is_mobile=True, has_touch=True
    )
    phone = context.new_page()
    phone.goto(url, wait_until="domcontentloaded")
    for tab, filled in (("Training", "#jobs .job"), ("Reports", "#report .examples")):
        phone.get_by_role("tab", name=tab).click()
        expect(phone.locator(filled).first).to_be_visible(timeout=20_000)
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()
