"""Real stacks: the `hotlora up` that `make run` calls, with real vLLM, real training and the real page."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from hotlora.client import Client

ROOT = Path(__file__).resolve().parent.parent.parent
TRIAGE = ROOT / "examples" / "triage" / "train.jsonl"
ENGINE_START_SECONDS = 500


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A running `hotlora up`."""

    home: Path
    urls: dict[str, str]
    """Of `page`, `gateway` and `grpc`."""
    process: subprocess.Popen[str]

    def client(self) -> Client:
        return Client(self.urls["grpc"])


def environment(home: Path, models_dir: Path) -> dict[str, str]:
    """Everything on free ports below `home`."""
    return {
        **os.environ,
        "HOTLORA_HOME": str(home),
        "HOTLORA_MODELS_DIR": str(models_dir),
        "HOTLORA_GRPC_ADDRESS": "127.0.0.1:0",
        "HOTLORA_GATEWAY_ADDRESS": "127.0.0.1:0",
        "HOTLORA_UI_ADDRESS": "127.0.0.1:0",
        "HOTLORA_ENGINE_PORT": "0",
        "HOTLORA_EVALUATION_ROWS": "0",  # reports are asked for where they are tested
    }


@contextmanager
def running_stack(home: Path, models_dir: Path, *options: str) -> Iterator[Stack]:
    """`hotlora up` until the block ends; that it ends cleanly, and everything with it, is checked."""
    command = [sys.executable, "-m", "hotlora.command", "up", "--json", *options]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(home, models_dir), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        urls = next((said["ready"] for line in process.stdout if "ready" in (said := json.loads(line))), None)
        if urls is None:
            logs = "\n".join(path.read_text()[-3000:] for path in sorted((home / "logs").glob("*.log")))
            pytest.fail(f"hotlora up ended with {process.wait()} before it was ready:\n{logs}")
        yield Stack(home=home, urls=urls, process=process)
    finally:
        started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
        process.stdout.close()
    assert code == 0
    _, left = psutil.wait_procs(started, timeout=5)
    assert not left, "hotlora up ended and left processes behind"


@pytest.fixture(scope="session")
def stack(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, base_model_dir: Path
) -> Iterator[Stack]:
    """One stack for all end-to-end tests."""
    with running_stack(tmp_path_factory.mktemp("stack"), models_dir) as running:
        yield running


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight short questions with their answers alone: enough to train on, few enough for seconds."""
    path = tmp_path_factory.mktemp("data") / "small.jsonl"
    rows = [json.loads(line)["messages"][1:] for line in sorted(TRIAGE.read_text().splitlines(), key=len)[:8]]
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in rows))
    return path
