"""The job that `make demo` runs, on a real stack: on fewer rows, and still better than the base."""

import dataclasses
from pathlib import Path

import pytest
from rich.console import Console

from examples.demo import main_job
from examples.triage.score import HELDOUT_PATH, read_rows
from hotlora.aio import AsyncClient
from tests.end_to_end.conftest import TRIAGE, Stack

pytestmark = [pytest.mark.engine, pytest.mark.training, pytest.mark.timeout(900)]

TRAINED_ROWS = 28
ASKED_ROWS = 10


async def test_the_demos_adapter_is_proven_and_better_than_the_base(stack: Stack, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b"".join(sorted(TRIAGE.read_bytes().splitlines(keepends=True), key=len)[:TRAINED_ROWS]))
    async with AsyncClient(stack.urls["grpc"]) as client:
        report = await main_job(
            client,
            train_path=rows,
            held_out=read_rows(HELDOUT_PATH)[:ASKED_ROWS],
            console=Console(quiet=True),
        )
    assert report.passed, report.failure
    assert (report.state, report.adapter_state) == ("SUCCEEDED", "ACTIVE")
    assert report.score["adapter"]["overall"] > report.score["base"]["overall"] + 0.2
    assert len(report.questions) == ASKED_ROWS
    proof = report.verification
    assert proof["adapterDifference"] <= proof["tolerance"] < proof["effect"]  # type: ignore[operator]
    assert None not in dataclasses.astuple(report.seconds)
