"""The figures in the examples' READMEs, measured again: minutes for each, so only when asked for.

python -m pytest tests/figures
"""

import subprocess
import sys

import pytest

from examples.recipes import RECIPES, ROOT

pytestmark = [pytest.mark.engine, pytest.mark.training, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("name", [recipe.name for recipe in RECIPES])
def test_base_and_adapter_reach_the_figures_of_the_readme(name: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "examples", name],
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
