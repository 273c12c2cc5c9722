"""The plan panel of the Training tab, in a real browser."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from hotlora.client import Client
from hotlora.v1.tuning_service_pb2 import TuningJob
from tests.browser.conftest import choose
from tests.stage.folds import unfold
from tests.stage.service import Stage
from tests.stage.trained import GOOD_ROW

pytestmark = pytest.mark.browser


def test_a_plan_for_the_chosen_file_shows_memory_time_and_advice(
    page: Page, stage: Stage, client: Client, tmp_path: Path
) -> None:
    examples = tmp_path / "examples.jsonl"
    examples.write_bytes(GOOD_ROW * 3)
    stage.gate("busy")
    busy = client.create_tuning_job(dataset=client.upload_dataset(examples).name, adapter_id="busy")
    for update in client.watch_tuning_job(busy.name):
        if update.event.HasField("metrics"):
            break
    kept = client.list_datasets()

    choose(page, examples)
    unfold(page, "Plan: what it will need")
    page.get_by_label("Measure this machine first").check()
    page.click("button#plan")
    expect(page.locator(".toast-body")).to_contain_text("plan without a probe, or when it has ended")
    page.get_by_label("Measure this machine first").uncheck()
    page.click("button#plan")

    planned = page.locator("#planned")
    expect(planned).to_contain_text("3 rows, 84 tokens")
    expect(planned).to_contain_text(re.compile(r"Recommended: \w"))
    expect(planned.locator("tr.right").first).to_have_text(re.compile(r"^\D+\d+\.\d GiByes"))
    expect(planned).to_contain_text("3 rows are under 1,000")
    assert client.list_datasets() == kept
    assert client.get_tuning_job(busy.name).state == TuningJob.STATE_RUNNING
