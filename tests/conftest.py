"""What every test may use: the default base model, made once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FIRST = (
    *("tests/end_to_end", "tests/plugin", "tests/service/test_engine_real.py"),
    *("tests/training", "tests/browser"),
)
SHARING_ONE_STAGE = {"tests/end_to_end", "tests/browser"}
"""Folders whose tests share a stack or a browser that takes long to start."""
DEFAULT_MODEL = "smollm2-135m-instruct"


def pytest_configure(config: pytest.Config) -> None:
    """Processes that share the tests share the cores: threads that wait for one whose core somebody else has
    make an engine's small products take longer than a thread alone does."""
    if processes := config.getoption("numprocesses", default=None):
        threads = max(1, len(os.sched_getaffinity(0)) // processes)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """How several processes share the tests. (xdist's own groups do nothing with pytest 9.2.)"""
    return _Stages(config, log)


class _Stages(LoadScopeScheduling):
    """Tests of a file stay together, and those of a folder that shares a stage."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(nodeid).partition("::")[0]
        folder = file.rpartition("/")[0]
        return folder if folder in SHARING_ONE_STAGE else file


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes minutes begins, where several processes share the tests."""
    if hasattr(config, "workerinput"):
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
