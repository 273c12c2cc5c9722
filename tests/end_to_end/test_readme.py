"""The README's snippets, run as they stand on a real stack, with nothing replaced but addresses and data."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT, Stack

pytestmark = [pytest.mark.engine, pytest.mark.training, pytest.mark.timeout(600)]


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def adapted(text: str, stack: Stack, small_dataset: Path) -> str:
    """The text with this stack's addresses and a shorter file."""
    return (
        text.replace("127.0.0.1:50051", stack.urls["grpc"])
        .replace("http://127.0.0.1:8080/v1", stack.urls["gateway"])
        .replace("examples/triage/train.jsonl", str(small_dataset))
    )


def run(code: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=500, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_grpc_and_the_openai_snippet_train_prove_and_ask(stack: Stack, small_dataset: Path) -> None:
    train, ask = (adapted(code, stack, small_dataset) for code in snippets("python"))
    said = run(train)
    assert re.search(r"^step 1: loss \d", said, flags=re.M)
    assert re.search(r"^support@1 differs from what was trained by 0\.0\d+$", said.splitlines()[-1])
    answers = run(ask)
    assert "smollm2-135m-instruct says: " in answers
    assert "support@1 says: " in answers


def test_the_commands_of_the_readme_run_and_end_well(
    stack: Stack, small_dataset: Path, tmp_path: Path
) -> None:
    (shell,) = (text for text in snippets("sh") if "hotlora train" in text)
    for line in adapted(shell, stack, small_dataset).splitlines():
        ended = subprocess.run(
            line.replace("hotlora ", f"{sys.executable} -m hotlora.command ", 1),
            shell=True,
            cwd=tmp_path,
            env={"HOTLORA_ADDRESS": stack.urls["grpc"], "PATH": "/usr/bin:/bin", "TERM": "dumb"},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert ended.returncode == 0, f"{line}: {ended.stdout}{ended.stderr}"
    assert (tmp_path / "support-2" / "adapter_model.safetensors").is_file()
