"""A real Chromium on the real page, in front of a service that the test directs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.stage import Stage, base_and_adapter, on_stage

ROOT = Path(__file__).resolve().parent.parent.parent
CHROMIUM_ARGUMENTS = ["--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests; `make test` installs it."""
    path = shutil.which("chromium") or pytest.fail("Chromium is not installed: run deploy/setup.sh --browser")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def _stage_and_url() -> Iterator[tuple[Stage, str]]:
    stage = Stage()
    with on_stage(stage) as address:
        environment = {**os.environ, "HOTLORA_ADDRESS": address, "HOTLORA_UI_ADDRESS": "127.0.0.1:0"}
        page = subprocess.Popen(
            [sys.executable, "-m", "ui"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
        assert page.stdout is not None
        url = page.stdout.readline().strip()
        yield stage, url
        page.terminate()
        page.wait(20)
        page.stdout.close()


@pytest.fixture
def stage(_stage_and_url: tuple[Stage, str]) -> Iterator[Stage]:
    """The director's place, cleared for each test."""
    stage, _ = _stage_and_url
    fresh = Stage(models=base_and_adapter())
    vars(stage).update(vars(fresh))
    yield stage
    for part in stage.parts.values():
        part.gate.set()


@pytest.fixture
def url(_stage_and_url: tuple[Stage, str]) -> str:
    """Where the page is."""
    return _stage_and_url[1]


@pytest.fixture
def page(browser: Browser, stage: Stage, url: str) -> Iterator[Page]:
    """The page as a desktop browser shows it, its pickers filled."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    expect.set_options(timeout=20_000)  # other tests keep the processors busy meanwhile
    opened.goto(url, wait_until="domcontentloaded")
    opened.wait_for_function("document.querySelector('#right-model input')?.value.includes('@1')")
    yield opened
    context.close()
