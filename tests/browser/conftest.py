"""A real Chromium on the real page before the real service, with doubles at engine and trainer."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from hotlora.client import Client
from hotlora.v1.adapter_service_pb2 import AdapterVersion
from tests.stage.service import Stage, staged
from tests.stage.trained import train

ROOT = Path(__file__).resolve().parent.parent.parent
CHROMIUM_ARGUMENTS = ["--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
BASE, OTHER_BASE, ADAPTER = "tiny-base", "other-base", "support@1"
LIMIT_MILLISECONDS = 20_000
"""Other tests keep the processors busy meanwhile."""


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests; `make test` installs it."""
    path = shutil.which("chromium") or pytest.fail("Chromium is not installed: run deploy/setup.sh --browser")
    expect.set_options(timeout=LIMIT_MILLISECONDS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("stage"), more_bases=[OTHER_BASE]) as stage:
        stage.engine.faults.refused_loads = {"broken@1"}
        train(stage, "broken", state=AdapterVersion.STATE_FAILED)
        train(stage, ADAPTER.removesuffix("@1"))
        yield stage


@pytest.fixture(scope="package")
def kept_by_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page keeps files that were uploaded to it."""
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="package")
def url(_stage: Stage, kept_by_page: Path) -> Iterator[str]:
    """Where the page is."""
    addresses = {"HOTLORA_ADDRESS": _stage.address, "HOTLORA_UI_ADDRESS": "127.0.0.1:0"}
    environment = {**os.environ, **addresses, "GRADIO_TEMP_DIR": str(kept_by_page)}
    page = subprocess.Popen(
        [sys.executable, "-m", "ui"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert page.stdout is not None
    yield page.stdout.readline().strip()
    page.terminate()
    page.wait(20)
    page.stdout.close()


@pytest.fixture
def stage(_stage: Stage) -> Iterator[Stage]:
    """The service with support@1, which is ACTIVE, and broken@1, which FAILED; its doubles behave until the
    test says otherwise. It keeps what tests make, so each trains adapters of its own."""
    _stage.forget()
    yield _stage
    _stage.forget()


@pytest.fixture
def client(stage: Stage) -> Iterator[Client]:
    """What a program sees of the service."""
    with Client(stage.address) as client:
        yield client


@pytest.fixture(scope="package")
def _desktop(browser: Browser) -> Iterator[BrowserContext]:
    """One for all tests, so that the page's scripts are fetched and compiled once."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(LIMIT_MILLISECONDS)
    yield context
    context.close()


@pytest.fixture(scope="package")
def _pocket(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, device_scale_factor=2, is_mobile=True, has_touch=True
    )
    context.set_default_timeout(LIMIT_MILLISECONDS)
    yield context
    context.close()


@pytest.fixture
def phone(_pocket: BrowserContext, stage: Stage, url: str) -> Iterator[Page]:
    """The page as a phone shows it."""
    opened = _pocket.new_page()
    opened.goto(url, wait_until="domcontentloaded")
    yield opened
    opened.close()


@pytest.fixture
def page(_desktop: BrowserContext, stage: Stage, url: str) -> Iterator[Page]:
    """The page as a desktop browser shows it, its pickers filled."""
    opened = _desktop.new_page()
    opened.goto(url, wait_until="domcontentloaded")
    expect(opened.locator("#right-model input")).to_have_value(re.compile("@"))
    yield opened
    opened.close()


def pick(page: Page, side: str, model: str) -> None:
    """Choose a side's model, where it is not chosen yet."""
    picker = page.locator(f"#{side}-model input")
    if not picker.input_value().startswith(f"{model} "):
        picker.click()
        page.get_by_role("option", name=f"{model} ").click()
        expect(picker).to_have_value(re.compile(re.escape(model)))
        expect(page.get_by_role("listbox")).to_have_count(0)  # it fades


def ask(page: Page, question: str) -> None:
    """Ask both sides."""
    page.fill("#question textarea", question)
    page.press("#question textarea", "Enter")


def choose(page: Page, examples: Path) -> None:
    """Choose a file on the Training tab."""
    page.get_by_role("tab", name="Training").click()
    page.set_input_files("#examples input[type=file]", str(examples))
    expect(page.locator("#examples")).to_contain_text(examples.stem)
