"""`python -m trainer` by itself: lines on standard output, an exit status, and signals."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.training.conftest import Jobs
from tests.training.processes import ROOT
from trainer import events
from trainer.events import decode


def test_sigterm_cancels_and_the_status_says_so(make_job: Jobs, tmp_path: Path) -> None:
    job = make_job(max_steps=1_000_000, validation_fraction=0.0)
    job.write(tmp_path / "job.json")
    with subprocess.Popen(
        [sys.executable, "-m", "trainer", str(tmp_path / "job.json"), "--threads", "1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if isinstance(decode(line), events.FirstStep):
                break
        process.send_signal(signal.SIGTERM)
        last = list(process.stdout)[-1]
        assert process.wait(10) == 3
    assert isinstance(decode(last), events.Cancelled)
    assert not job.artifacts_path.exists()


def test_a_job_file_that_is_none_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text("{}")
    answer = subprocess.run(
        [sys.executable, "-m", "trainer", str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 2
    assert "hyperparameters" in answer.stderr
    assert answer.stdout == ""
