"""Where the page may listen; no browser is needed for what it refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("foo", "'foo' is not HOST:PORT"),
        ("127.0.0.1:http", "is not HOST:PORT"),
        ("0.0.0.0:7860", "'0.0.0.0' is not a loopback host; accepted: 127.0.0.1"),
    ],
)
def test_an_address_that_the_page_may_not_have_is_refused_in_a_sentence_that_names_the_setting(
    address: str, reason: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "ui"],
        cwd=ROOT,
        env={**os.environ, "HOTLORA_UI_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("HOTLORA_UI_ADDRESS: ")
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr
