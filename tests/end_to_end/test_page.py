"""The real page before the real service: a training started from a file, then both models side by side."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from hotlora.v1.adapter_service_pb2 import AdapterVersion
from tests.browser.conftest import CHROMIUM_ARGUMENTS
from tests.end_to_end.conftest import Stack
from tests.stage.folds import unfold

pytestmark = [
    pytest.mark.engine,
    pytest.mark.training,
    pytest.mark.browser,
    pytest.mark.timeout(600),
]

TRAINING_MILLISECONDS = 300_000
ANSWER_MILLISECONDS = 60_000


@pytest.fixture
def page(stack: Stack) -> Iterator[Page]:
    path = shutil.which("chromium") or pytest.fail("Chromium is not installed: run deploy/setup.sh --browser")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        opened = chromium.new_page()
        opened.goto(stack.urls["page"], wait_until="domcontentloaded")
        opened.wait_for_selector("#question textarea")
        yield opened
        chromium.close()


def start(page: Page, examples: Path, adapter: str) -> None:
    """One epoch, at a rate at which that little teaches more than numeric noise can hide."""
    page.get_by_role("tab", name="Training").click()
    page.set_input_files("#examples input[type=file]", str(examples))
    expect(page.locator("#examples")).to_contain_text(examples.stem)
    page.fill("#adapter input, #adapter textarea", adapter)
    unfold(page, "Settings (empty: default)")
    for setting, value in {"rank": "8", "epochs": "1", "learning-rate": "1e-3"}.items():
        page.fill(f"#{setting} textarea, #{setting} input", value)
    page.click("button#start-training")


def test_a_file_becomes_an_adapter_that_answers_beside_the_base(
    page: Page, stack: Stack, small_dataset: Path
) -> None:
    start(page, small_dataset, "from-page")
    expect(page.locator("#jobs .job").first).to_contain_text("from-page", timeout=ANSWER_MILLISECONDS)
    expect(page.locator("#jobs .job .state").first).to_have_text("succeeded", timeout=TRAINING_MILLISECONDS)
    with stack.client() as client:
        *_, version = client.watch_adapter_version("adapters/from-page/versions/1")
    assert version.state == AdapterVersion.STATE_ACTIVE, version.failure
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_function("document.querySelector('#left-model input')?.value.includes('base')")
    page.click("#right-model input")
    page.locator("ul[role=listbox] li", has_text="from-page@1 · active").click(timeout=ANSWER_MILLISECONDS)
    page.fill("#question textarea", "Where is my parcel?")
    page.press("#question textarea", "Enter")
    for side, name in (("left", "smollm2-135m-instruct"), ("right", "from-page@1")):
        figures = page.locator(f"#{side}-figures")
        expect(figures).to_contain_text(name, timeout=ANSWER_MILLISECONDS)
        expect(figures).to_contain_text(re.compile(r"first token \d+\.\d\d s"))


def test_bad_input_is_told_at_the_page_and_nothing_is_made(page: Page, stack: Stack, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": \n')
    with stack.client() as client:
        jobs = len(client.list_tuning_jobs().tuning_jobs)
        datasets = len(client.list_datasets().datasets)
        start(page, bad, "never-made")
        expect(page.locator(".toast-body")).to_contain_text("line 2", timeout=ANSWER_MILLISECONDS)
        assert len(client.list_tuning_jobs().tuning_jobs) == jobs
        assert len(client.list_datasets().datasets) == datasets
