"""Versions pushed to the hub, by the command: with its real library, before a hub that is a double."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from hotlora.v1.tuning_service_pb2 import TuningJob
from tests.command.conftest import ROOT
from tests.doubles.hub_to_push_to import REFUSED, TOKEN, Hub, hub
from tests.stage.service import Stage

Push = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def double() -> Iterator[Hub]:
    with hub() as double:
        yield double


@pytest.fixture
def push(stage: Stage, support: TuningJob, double: Hub) -> Push:
    def run(*arguments: str, token: str = TOKEN, endpoint: str = "") -> subprocess.CompletedProcess[str]:
        environment = {
            "HOTLORA_ADDRESS": stage.address,
            "HF_ENDPOINT": endpoint or double.url,
            "HF_TOKEN": token,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",  # its chunks go to a store of their own; git-lfs is the hub's
        }
        return subprocess.run(
            [sys.executable, "-m", "hotlora.command", "adapters", "push", "support@1", *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
            check=False,
        )

    return run


def test_a_version_is_pushed_whole_into_a_private_repository_and_again_into_the_same(
    push: Push, double: Hub
) -> None:
    for _ in range(2):
        pushed = push("--to", "me/support", "--json")
        assert pushed.returncode == 0, pushed.stderr
        assert json.loads(pushed.stdout)["commitUrl"].startswith(f"{double.url}/me/support/commit/")
    assert double.private == {"me/support": True}
    files = double.files["me/support"]
    assert files.keys() == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert json.loads(files["adapter_config.json"])["peft_type"] == "LORA"
    assert b'base_model: "tiny-base"' in files["README.md"]
    assert double.commits == ["Upload support@1 of Hotlora"] * 2
    assert TOKEN not in pushed.stdout + pushed.stderr


def test_a_repository_is_public_where_that_is_asked_for(push: Push, double: Hub) -> None:
    assert push("--to", "me/open", "--public").returncode == 0
    assert double.private == {"me/open": False}


@pytest.mark.parametrize(
    ("arguments", "changes", "said", "code"),
    [
        (("--to", "me/support"), {"token": "wrong"}, "does not let this token write me/support", 5),
        (("--to", f"{REFUSED}/support"), {}, f"does not let this token write {REFUSED}/support", 5),
        (("--to", "no name"), {}, "'no name' is no OWNER/NAME", 2),
        (("--to", "me/support"), {"endpoint": "http://127.0.0.1:9"}, "The hub does not answer", 4),
        (("--to", "me/support", "--gguf-type", "f16"), {}, "gguf_type", 2),
    ],
)
def test_what_cannot_be_pushed_is_said_in_a_sentence(
    push: Push, double: Hub, arguments: tuple[str, ...], changes: dict[str, str], said: str, code: int
) -> None:
    ended = push(*arguments, **changes)
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not double.commits


def test_a_hub_that_is_away_is_tried_again_later_by_the_caller(push: Push, double: Hub) -> None:
    double.away = True
    ended = push("--to", "me/support")
    assert (ended.returncode, "answers 503; try later" in ended.stderr) == (4, True), ended.stderr
