"""`hotlora data check`: the service's checks of a file where no service is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hotlora.command.app import app
from tests.command.conftest import ROOT
from tests.tiny_renderer import tiny_renderer

GOOD = '{"prompt": "Open?", "completion": "Yes."}\n'


def check(*arguments: str | Path, models_dir: Path) -> subprocess.CompletedProcess[str]:
    """Runs the command as a person does."""
    environment = {**os.environ, "HOTLORA_MODELS_DIR": str(models_dir)}
    return subprocess.run(
        [sys.executable, "-m", "hotlora.command", "data", "check", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )


def test_a_good_file_is_reported_with_its_trained_tokens_marked(tmp_path: Path) -> None:
    tiny_renderer(tmp_path / "smollm2-135m-instruct")
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD * 3)

    run = check(path, models_dir=tmp_path)

    assert run.returncode == 0, run.stderr
    assert "rows kept   3" in run.stdout
    assert "2 as 1, 3 as 1" in run.stdout
    assert "«Yes.<|im_end|>»" in run.stdout


def test_a_bad_row_is_told_with_its_line_and_ends_with_2(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD + "oops\n")

    run = check(path, models_dir=tmp_path)

    assert run.returncode == 2
    assert "line 2: not JSON: expecting value at column 1. Each line is one complete" in run.stdout
    assert "Tokens were not counted" in run.stdout


def test_columns_are_mapped_and_programs_get_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,question,label\n1,Broken,bug\n2,Refund,billing\n")

    run = check(
        path,
        *("--map", "prompt=question", "--map", "completion=label", "--task", "classification", "--json"),
        models_dir=tmp_path,
    )

    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert document["labels"] == ["billing", "bug"]
    assert document["report"]["rowsKept"] == 2


def test_a_mapping_without_a_column_is_a_bad_argument(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")

    run = check(path, "--map", "prompt", models_dir=tmp_path)

    assert run.returncode == 2
    assert "KEY=COLUMN" in run.stderr


def test_checking_a_file_never_loads_torch(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD)
    program = (
        "import sys, hotlora.inspection; from hotlora.v1.dataset_service_pb2 import UploadHeader;"
        "from pathlib import Path;"
        "hotlora.inspection.check(Path(sys.argv[1]), UploadHeader(), None, engine_length=9);"
        "print('torch' in sys.modules, 'pyarrow' in sys.modules)"
    )

    run = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, cwd=ROOT, check=True
    )

    assert run.stdout == "False False\n"


def test_a_row_longer_than_base_or_engine_can_serve_is_bad_without_a_service_too(tmp_path: Path) -> None:
    base = tmp_path / "smollm2-135m-instruct"
    tiny_renderer(base)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "Open?", "completion": "' + "x" * 3000 + '"}\n')

    assert "more than the context of 2,048 that is served" in check(path, models_dir=tmp_path).stdout
    (base / "config.json").write_text('{"seq_length": 100}')
    assert "more than the context of 100 that is served" in check(path, models_dir=tmp_path).stdout


@pytest.mark.parametrize("length", ["many", "2048.5", "15", "-1", ""])
def test_a_context_that_no_engine_could_serve_is_told_by_the_name_of_its_variable(
    tmp_path: Path, length: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD)
    environment = {"HOTLORA_ENGINE_MAX_MODEL_LEN": length, "HOTLORA_MODELS_DIR": str(tmp_path)}

    run = CliRunner().invoke(app, ["data", "check", str(path)], env=environment)

    assert run.exit_code == 2
    sentence = f"HOTLORA_ENGINE_MAX_MODEL_LEN is {length!r}; it must be a whole number of tokens, 16 or more."
    assert run.stderr == f"hotlora: {sentence}\n"
