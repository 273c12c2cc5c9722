"""An upload that somebody breaks off, by closing the page or loading it anew, in a real browser."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from hotlora.client import Client
from tests.browser.conftest import choose
from tests.stage.service import Stage
from tests.stage.trained import GOOD_ROW

pytestmark = pytest.mark.browser

ROWS = 200_000
"""Some 18 MB: at the speed below they take longer than a test may."""
SLOW = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 100_000}
"""Bytes a second; -1 is no limit."""


def _close(page: Page) -> Page:
    """Leave, and come again later."""
    context, url = page.context, page.url
    page.close()
    opened = context.new_page()
    opened.goto(url, wait_until="domcontentloaded")
    return opened


def _reload(page: Page) -> Page:
    page.reload(wait_until="domcontentloaded")
    return page


def _files(folder: Path) -> set[str]:
    """Names of all that have content: Gradio leaves an empty one whenever it reads a field for a file."""
    return {path.name for path in folder.rglob("*") if path.is_file() and path.stat().st_size}


@pytest.mark.parametrize("leave", [_close, _reload])
def test_an_upload_that_is_broken_off_leaves_nothing_and_another_file_is_looked_at(
    page: Page,
    stage: Stage,
    client: Client,
    kept_by_page: Path,
    tmp_path: Path,
    leave: Callable[[Page], Page],
) -> None:
    made = client.list_datasets(), client.list_tuning_jobs(), _files(stage.home / "datasets")
    kept = _files(kept_by_page)
    large, small = tmp_path / "large.jsonl", tmp_path / "small.jsonl"
    large.write_bytes(GOOD_ROW * ROWS)
    small.write_bytes(GOOD_ROW * 3)
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", SLOW)
    page.get_by_role("tab", name="Training").click()
    page.set_input_files("#examples input[type=file]", large)
    expect(page.locator("#examples .wrap.progress")).to_be_visible()  # its first bytes have come
    opened = leave(page)
    choose(opened, small)
    expect(opened.locator("#findings")).to_contain_text("3 rows;")
    opened.close()
    assert _files(kept_by_page) == kept | {small.name}
    assert (client.list_datasets(), client.list_tuning_jobs(), _files(stage.home / "datasets")) == made
