"""What every test may use: the default base model, made once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FIRST = ("tests/end_to_end", "tests/plugin", "tests/service/test_engine_real.py", "tests/training")
SHARING_ONE_STAGE = {"end_to_end", "browser"}
"""Folders whose tests share a stack or a browser that takes long to start."""
DEFAULT_MODEL = "smollm2-135m-instruct"


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where processes share the tests, those of a file stay together, and what takes minutes begins."""
    if not config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    for item in items:
        folder = item.path.parent.name
        item.add_marker(pytest.mark.xdist_group(folder if folder in SHARING_ONE_STAGE else item.path.stem))
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    path = item.path.relative_to(ROOT).as_posix()
    return next((i for i, start in enumerate(LONGEST_FIRST) if path.startswith(start)), len(LONGEST_FIRST))


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Where converted base models are kept between runs."""
    return Path(os.environ.get("HOTLORA_MODELS_DIR", ROOT / ".hotlora" / "models"))


@pytest.fixture(scope="session")
def base_model_dir(models_dir: Path) -> Path:
    """Directory of SmolLM2-135M-Instruct as safetensors; converted from its package the first time."""
    command = [sys.executable, "-m", "trainer.base_model", "--name", DEFAULT_MODEL, "--models-dir"]
    answer = subprocess.run([*command, str(models_dir)], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return Path(json.loads(answer.stdout.splitlines()[-1])["path"])
