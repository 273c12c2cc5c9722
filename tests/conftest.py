"""What every test may use: the default base model, made once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_MODEL = "smollm2-135m-instruct"


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
