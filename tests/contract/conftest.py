"""Fixtures of the contract tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.stage import Stage, running


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A running service."""
    async with running(tmp_path) as stage:
        yield stage
