"""What `--help` loads: little enough to answer in under half a second on any machine."""

import os
import re
import subprocess
import sys

import pytest

from tests.command.conftest import ROOT

HEAVY = ("grpc", "google", "rich", "hotlora.client", "hotlora.aio", "hotlora.v1", "asyncio", "torch")
MOST_MODULES = 450
"""An interpreter with typer has about 300 and answers in a fifth of a second; gRPC alone brings 500 more."""
COUNT = """
import sys
from hotlora.command import main
sys.argv = ["hotlora", *{arguments!r}]
try:
    main()
finally:
    print("\\n".join(sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["datasets", "--help"], ["adapters", "load", "--help"]]
)
def test_help_loads_neither_grpc_nor_rich_nor_much_else(arguments: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-c", COUNT.format(arguments=arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=dict(os.environ),
        check=True,
    )

    modules = run.stderr.split()
    assert "Usage" in run.stdout
    assert [name for name in modules if name.startswith(HEAVY)] == []
    assert len(modules) < MOST_MODULES


def test_help_names_the_commands_of_the_readme_and_the_exit_codes() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "hotlora.command", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )

    manual = (ROOT / "README.md").read_text().partition("## The command\n")[2].partition("The environment")[0]
    told = {*re.findall(r"^hotlora (\w+)", manual, re.MULTILINE), *re.findall(r"`(\w+)`", manual)}
    assert told == set(re.findall(r"^  (\w+)  ", run.stdout.partition("Commands:")[2], re.MULTILINE))
    assert "Exit codes: 0 done, 1 failed, 2 bad argument" in run.stdout
