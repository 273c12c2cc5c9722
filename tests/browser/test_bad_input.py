"""Bad input at the page: each is told in a toast that names the line or the field, and nothing is made."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from hotlora.client import Client
from tests.browser.conftest import choose
from tests.stage.bad_files import BAD_FILES
from tests.stage.folds import unfold
from tests.stage.service import Stage
from tests.stage.trained import GOOD_ROW

pytestmark = pytest.mark.browser

SPARSE_BYTES = 2 << 30
FORM = {"adapter": "never", "rank": "", "learning-rate": "", "start-version": "", "dataset": ""}
"""What stands in the fields where a case does not say otherwise."""
BAD_FIELDS: dict[str, tuple[str, str, str]] = {
    "a rank of a billion": ("rank", "1000000000", "Rank: must be greater than or equal to 1"),
    "a rank above the engine's": ("rank", "400", "Rank: must be at most 64, the highest rank"),
    "a learning rate that is no number": ("learning-rate", "nan", "Learning rate: must be greater than 0"),
    "a path as an adapter": ("adapter", "../etc", "Adapter: '../etc' is no name"),
    "an unknown version": ("start-version", "nobody@1", "there is no version 1 of adapter 'nobody'"),
    "a path as a version": ("start-version", "../etc@1", "Start version: '../etc@1' names no version"),
}
"""Field, what is typed there, and words of what is told."""
BAD_NAMES = {"nobody": "there is no dataset 'nobody'", "../etc": "../etc"}


@pytest.fixture(scope="module")
def form(_desktop: BrowserContext, url: str) -> Iterator[Page]:
    """One visit for all of them: the Training tab with every field in sight."""
    opened = _desktop.new_page()
    opened.goto(url, wait_until="domcontentloaded")
    opened.get_by_role("tab", name="Training").click()
    for fold in ("What the file is", "Settings (empty: default)", "Start version, evaluation"):
        opened.get_by_text(fold).click()
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def nothing_is_made(stage: Stage, client: Client, form: Page) -> Iterator[None]:
    """Whatever was given, the service goes on with the jobs and the whole files that it had."""
    kept = client.list_datasets(page_size=1000), client.list_tuning_jobs()
    yield
    form.locator(".toast-close").click()
    expect(form.locator(".toast-body")).to_have_count(0)
    assert (client.list_datasets(page_size=1000), client.list_tuning_jobs()) == kept
    files = {f"{one.name.removeprefix('datasets/')}.jsonl" for one in kept[0].datasets}
    assert {path.name for path in (stage.home / "datasets").iterdir()} == files
    assert "Traceback" not in form.content()


def fill(form: Page, file: Path | None, fields: Mapping[str, str]) -> None:
    """Give a file and what stands in fields, and nothing else."""
    clear = form.locator("#examples").get_by_label("Clear")
    if clear.is_visible():
        clear.click()
    if file is not None:
        choose(form, file)
    for name, text in {**FORM, **fields}.items():
        field = form.locator(f"#{name} input, #{name} textarea")
        field.fill(text)
        field.press("Tab")


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_told_by_its_line(form: Page, tmp_path: Path, name: str) -> None:
    content, line = BAD_FILES[name]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    fill(form, path, {})
    form.click("button#start-training")
    expect(form.locator(".toast-body")).to_contain_text(f"{line}: ")
    expect(form.locator("#findings li")).to_contain_text(f"{line}: ")


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_bad_field_is_told_by_its_name(form: Page, tmp_path: Path, name: str) -> None:
    field, text, words = BAD_FIELDS[name]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD_ROW * 3)
    fill(form, path, {field: text})
    form.click("button#start-training")
    expect(form.locator(".toast-body")).to_contain_text(words)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_dataset_that_is_not_there_is_told_by_its_name(form: Page, name: str) -> None:
    fill(form, None, {"dataset": name})
    expect(form.locator(".toast-body")).to_contain_text(BAD_NAMES[name])


def test_a_file_of_2_gb_is_refused_by_the_page_itself(form: Page, tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.truncate(SPARSE_BYTES)  # it takes no room
    form.set_input_files("#examples input[type=file]", str(path))
    expect(form.locator(".toast-body")).to_contain_text("exceed the maximum allowed size of 512")


def test_a_seed_that_is_no_number_is_told_before_a_model_is_asked(form: Page, stage: Stage) -> None:
    form.get_by_role("tab", name="Compare").click()
    unfold(form, "Sampling and system prompt")
    form.fill("#seed textarea, #seed input", "eleven")
    form.press("#seed textarea, #seed input", "Tab")
    form.fill("#question textarea", "Hello?")
    form.press("#question textarea", "Enter")
    of_both_sides = re.compile("(Seed: 'eleven' is not a whole number.*){2}", re.DOTALL)
    expect(form.locator(".toast-body")).to_contain_text(of_both_sides)
    for side in ("left", "right"):
        expect(form.locator(f"#{side}-figures")).to_contain_text("no answer")
    assert stage.questions == []
