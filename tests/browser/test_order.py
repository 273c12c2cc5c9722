"""The form of the Training tab beyond file, name and technique, in a real browser."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from hotlora.client import Client
from hotlora.v1.resources_pb2 import TASK_QUESTION_ANSWERING
from hotlora.v1.tuning_service_pb2 import METRIC_TASK_SCORE
from tests.browser.conftest import OTHER_BASE
from tests.stage.folds import unfold
from tests.stage.service import Stage
from tests.stage.trained import GOOD_ROW

pytestmark = pytest.mark.browser


def rows(path: Path, topic: str, count: int) -> Path:
    """A file of rows with columns of its own, and a bad line."""
    lines = [json.dumps({"frage": f"{topic} {n}?", "antwort": f"Yes, {n}."}) for n in range(count)]
    path.write_text("\n".join([*lines, "{oops"]) + "\n")
    return path


def fill(page: Page, field: str, text: str) -> None:
    page.fill(f"#{field} textarea, #{field} input", text)


def pick(page: Page, field: str, words: str) -> None:
    page.click(f"#{field} input")
    page.get_by_role("option", name=words).click()


def test_what_a_file_is_said_to_be_holds_for_look_plan_and_training_and_a_version_is_gone_on_with(
    page: Page, stage: Stage, client: Client, tmp_path: Path
) -> None:
    stage.gate("further")
    page.get_by_role("tab", name="Training").click()
    page.set_input_files("#examples input[type=file]", rows(tmp_path / "trained.jsonl", "Open", 30))
    findings = page.locator("#findings")
    expect(findings).to_contain_text("0 rows")
    unfold(page, "What the file is")
    fill(page, "mapping", "prompt=frage, completion=antwort")
    pick(page, "task", "question answering")
    page.get_by_label("Bad rows: drop them").check()
    expect(findings).to_contain_text("30 rows;")
    expect(findings).to_contain_text("line 31: not JSON")
    expect(findings.locator("mark")).to_have_text("Yes, 0.<|im_end|>")

    unfold(page, "Plan: what it will need")
    page.click("button#plan")
    expect(page.locator("#planned")).to_contain_text("30 rows, ")

    unfold(page, "Start version, evaluation, early stopping")
    pick(page, "start-version", "support@1")
    fill(page, "eval-every-steps", "2")
    fill(page, "early-stopping-patience", "1")
    pick(page, "early-stopping-metric", "task score")
    page.set_input_files("#evaluation-file input[type=file]", rows(tmp_path / "asked.jsonl", "Shut", 5))
    expect(page.locator("#evaluation-file")).to_contain_text("asked")
    fill(page, "adapter", "further")
    page.click("button#start-training")
    expect(page.locator("#jobs")).to_contain_text("further")

    (job,) = client.list_tuning_jobs(adapter="adapters/further").tuning_jobs
    trained, asked = client.get_dataset(job.dataset), client.get_dataset(job.evaluation_dataset)
    assert (trained.rows, trained.task) == (30, TASK_QUESTION_ANSWERING)
    assert (asked.rows, asked.task) == (5, TASK_QUESTION_ANSWERING)
    assert job.start_version == "adapters/support/versions/1"
    assert job.hyperparameters.early_stopping_patience == 1
    assert job.hyperparameters.early_stopping_metric == METRIC_TASK_SCORE


def test_a_dataset_that_is_kept_is_looked_at_planned_for_and_trained_on_as_it_is(
    page: Page, stage: Stage, client: Client
) -> None:
    stage.gate("again")
    kept = client.upload_dataset(GOOD_ROW * 3, display_name="three greetings")
    listed = client.list_datasets()
    page.get_by_role("tab", name="Training").click()
    unfold(page, "What the file is")
    pick(page, "dataset", "three greetings · 3 rows")
    expect(page.locator("#findings")).to_contain_text("3 rows;")
    expect(page.locator("#findings mark")).to_have_text("hello<|im_end|>")
    unfold(page, "Plan: what it will need")
    page.click("button#plan")
    expect(page.locator("#planned")).to_contain_text("3 rows, ")
    fill(page, "adapter", "again")
    page.click("button#start-training")
    expect(page.locator("#jobs")).to_contain_text("again")
    (job,) = client.list_tuning_jobs(adapter="adapters/again").tuning_jobs
    assert job.dataset == kept.name
    assert client.list_datasets() == listed
    pick(page, "task", "generation")
    expect(page.locator(".toast-body").last).to_contain_text(f"{kept.name} was read when it was made")


def test_what_is_refused_is_told_by_the_names_of_fields_and_leaves_no_dataset_behind(
    page: Page, client: Client, tmp_path: Path
) -> None:
    kept = client.list_datasets()
    told = page.locator(".toast-body").last
    start = page.locator("button#start-training")
    page.get_by_role("tab", name="Training").click()
    start.click()
    expect(told).to_contain_text("Choose a file of examples first.")
    page.set_input_files("#examples input[type=file]", rows(tmp_path / "trained.jsonl", "Open", 3))
    expect(page.locator("#examples")).to_contain_text("trained")
    start.click()
    expect(told).to_contain_text("Adapter: give a name of lower-case letters")
    fill(page, "adapter", "never")
    unfold(page, "Settings (empty: default)")
    fill(page, "rank", "many")
    fill(page, "epochs", "1" * 12)
    start.click()
    expect(told).to_contain_text("Rank: 'many' is not a whole number, for example 8; Epochs: 1111")
    fill(page, "rank", "400")
    fill(page, "epochs", "0")
    unfold(page, "What the file is")
    page.get_by_label("Bad rows: drop them").check()
    fill(page, "mapping", "prompt=frage\ncompletion=antwort")
    start.click()
    expect(told).to_contain_text("Rank: must be")
    expect(told).to_contain_text("Epochs: must be")
    fill(page, "rank", "")
    fill(page, "epochs", "")
    unfold(page, "Start version, evaluation, early stopping")
    page.set_input_files("#evaluation-file input[type=file]", rows(tmp_path / "asked.jsonl", "Shut", 0))
    expect(page.locator("#evaluation-file")).to_contain_text("asked")
    start.click()
    expect(told).to_contain_text("Evaluation dataset: line 1: not JSON")
    assert client.list_datasets() == kept
    assert not client.list_tuning_jobs(adapter="adapters/never").tuning_jobs


def test_a_training_is_of_the_base_model_that_is_chosen(
    page: Page, stage: Stage, client: Client, tmp_path: Path
) -> None:
    stage.gate("others")
    examples = tmp_path / "examples.jsonl"
    examples.write_bytes(GOOD_ROW * 7)
    page.get_by_role("tab", name="Training").click()
    unfold(page, "Base model, objective, adapter, optimizer")
    pick(page, "base-model", OTHER_BASE)
    page.set_input_files("#examples input[type=file]", examples)
    expect(page.locator("#findings")).to_contain_text("7 rows;")
    unfold(page, "Plan: what it will need")
    page.click("button#plan")
    expect(page.locator("#planned")).to_contain_text("7 rows, ")
    fill(page, "adapter", "others")
    page.click("button#start-training")
    expect(page.locator("#jobs")).to_contain_text("others")

    (job,) = client.list_tuning_jobs(adapter="adapters/others").tuning_jobs
    assert job.base_model == client.get_dataset(job.dataset).base_model == OTHER_BASE
