"""The fork server and its trainers: start, cancel, resume after SIGKILL, and that nobody outlives anybody."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.conftest import Bases, Jobs
from tests.training.processes import ForkServer, Trainer, alive, kill
from tests.training.tiny import write_pairs
from trainer import events
from trainer.config import Objective, Technique

ENDLESS = {"max_steps": 1_000_000, "validation_fraction": 0.0}


@pytest.fixture(scope="module")
def socket_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fs") as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def server(base_of: Bases, socket_dir: Path) -> Iterator[ForkServer]:
    """One fork server for all tests that leave it alive; its imports are the expensive part."""
    with ForkServer(socket_dir, preload=base_of("llama")) as server:
        yield server


def wait_until(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Look until something is true; gives whether it became so in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)  # another process's end can only be looked at
    return True


@pytest.mark.parametrize("technique", list(Technique))
def test_a_job_is_trained_and_published(server: ForkServer, make_job: Jobs, technique: Technique) -> None:
    job = make_job(job_id=f"good-{technique}", technique=technique)
    trainer = server.start(job)
    told = list(trainer.events())
    assert isinstance(told[0], events.Loading)
    assert told[0].pid == trainer.pid
    assert isinstance(told[-1], events.Published), told
    assert (job.artifacts_path / told[-1].digest / "MANIFEST.json").is_file()
    assert server.line() == {
        "ended": str(job.work_path / "job-1.json"),
        "pid": trainer.pid,
        "exit_code": 0,
        "signal": None,
    }


def test_the_server_leaves_a_gpu_to_its_trainers(base_of: Bases) -> None:
    """Where there is a GPU that only the driver tells of; its state would not survive the fork."""
    families = [str(base_of(family)) for family in ("llama", "gpt2", "bloom", "mamba")]
    code = f"""
import os, pathlib, traceback, torch
server = os.getpid()
def ask_the_driver():
    if os.getpid() != server:
        return 1
    traceback.print_stack()
    os._exit(3)
torch.cuda.is_available = torch.cuda.device_count = ask_the_driver
torch.cuda._lazy_init = torch.cuda.is_current_stream_capturing = ask_the_driver
from trainer import forkserver
for base in {families}:
    prepared = forkserver._prepare(pathlib.Path(base), 1)
    assert prepared.base.model.dtype == torch.bfloat16
    print("ready", flush=True)
import bitsandbytes  # asks for GPUs, and so shows that what looks for it above finds it
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("ready\n" * len(families), 3), ended.stderr


def test_a_base_that_is_not_held_ready_is_loaded(server: ForkServer, make_job: Jobs) -> None:
    told = list(server.start(make_job("gpt2", job_id="other-base")).events())
    assert isinstance(told[-1], events.Published), told
    assert server.line()["exit_code"] == 0


def test_a_cancelled_job_ends_in_the_middle_and_publishes_nothing(server: ForkServer, make_job: Jobs) -> None:
    job = make_job(job_id="cancelled", **ENDLESS)
    trainer = server.start(job)
    trainer.wait_for(events.FirstStep)
    trainer.cancel()
    last = list(trainer.events())[-1]
    assert isinstance(last, events.Cancelled)
    assert server.line()["exit_code"] == 3
    assert not job.artifacts_path.exists()


def test_a_trainer_whose_service_died_dies_at_once(server: ForkServer, make_job: Jobs) -> None:
    trainer = server.start(make_job(job_id="orphan", **ENDLESS))
    trainer.wait_for(events.FirstStep)
    trainer.hang_up()
    ended = server.line()
    assert ended["pid"] == trainer.pid
    assert (
        ended["signal"] == 9 or ended["exit_code"] == 1
    )  # by its watcher, or by the line it could not write
    assert not alive(trainer.pid)


def test_nonsense_on_standard_input_is_survived(server: ForkServer, make_job: Jobs) -> None:
    server.write(b"nonsense\n" + json.dumps({"job": "only"}).encode() + b"\n[]\n")
    told = list(server.start(make_job(job_id="after-nonsense")).events())
    assert isinstance(told[-1], events.Published)
    assert server.line()["exit_code"] == 0


def test_a_job_file_that_cannot_be_read_ends_its_trainer_alone(
    server: ForkServer, make_job: Jobs, tmp_path: Path
) -> None:
    server.write(json.dumps({"job": "/nowhere/job.json", "socket": str(tmp_path / "none")}).encode() + b"\n")
    assert server.line()["started"] == "/nowhere/job.json"
    assert server.line()["exit_code"] == 1
    assert isinstance(list(server.start(make_job(job_id="next")).events())[-1], events.Published)
    assert server.line()["exit_code"] == 0


def curve(trainer: Trainer) -> dict[int, tuple[float, float, int]]:
    """Loss, gradient norm and tokens by step."""
    return {
        event.step: (event.loss, event.grad_norm, event.tokens)
        for event in trainer.events()
        if isinstance(event, events.Metrics)
    }


@pytest.mark.parametrize(
    ("technique", "objective"),
    [
        *((technique, Objective.SUPERVISED) for technique in Technique),
        (Technique.FULL, Objective.PREFERENCE),
    ],
)
def test_a_job_killed_at_any_step_goes_on_as_if_undisturbed(
    server: ForkServer,
    make_job: Jobs,
    tmp_path: Path,
    rows_path: Path,
    technique: Technique,
    objective: Objective,
) -> None:
    preference = objective is Objective.PREFERENCE
    settings = {
        "technique": technique,
        "objective": objective,
        "dataset": write_pairs(tmp_path / "pairs.jsonl") if preference else rows_path,
        "max_steps": 60,
        "checkpoint_every_steps": 7,
        "eval_every_steps": 100,
        "dropout": 0.1,
    }
    undisturbed = curve(server.start(make_job(job_id=f"calm-{technique}-{objective}", **settings)))
    assert server.line()["exit_code"] == 0
    assert sorted(undisturbed) == list(range(1, 61))

    job = make_job(job_id=f"calm-{technique}-{objective}", **settings)
    job = replace(job, work_path=job.work_path.parent / "killed")
    first = server.start(replace(job, attempt=2))
    seen: dict[int, tuple[float, float, int]] = {}
    for event in first.events():
        if isinstance(event, events.Metrics):
            seen[event.step] = (event.loss, event.grad_norm, event.tokens)
        if isinstance(event, events.CheckpointSaved) and event.step >= 21:
            kill(first.pid)
    assert server.line()["signal"] == 9
    assert max(seen) < 60

    second = server.start(replace(job, attempt=3))
    resumed = second.wait_for(events.Resumed)
    assert isinstance(resumed, events.Resumed)
    assert resumed.step >= 21
    rest = curve(second)
    assert server.line()["exit_code"] == 0
    assert sorted(rest) == list(range(resumed.step + 1, 61))
    assert {**seen, **rest} == undisturbed
    assert all(undisturbed[step] == values for step, values in seen.items())


MEMORISING = {
    "learning_rate": 3e-2,
    "schedule": "constant",
    "warmup_ratio": 0.0,
    "dropout": 0.1,
    "validation_fraction": 0.5,
    "eval_every_steps": 4,
    "checkpoint_every_steps": 10,
    "max_steps": 60,
    "early_stopping_patience": 8,
}
"""Its best step comes long before its last one."""


def told_after(step: int, told: Sequence[events.TrainerEvent]) -> list[object]:
    """Evaluations and verdicts after a step, and the last word; without times."""
    kept = (events.Evaluation, events.Fit, events.Saving)
    return [replace(event, time=0.0) for event in told if isinstance(event, kept) and event.step > step]


def test_a_job_killed_after_its_best_step_publishes_that_all_the_same(
    server: ForkServer, make_job: Jobs
) -> None:
    job = make_job(job_id="memorising", **MEMORISING)
    undisturbed = list(server.start(job).events())
    assert server.line()["exit_code"] == 0
    best = min(
        (event for event in undisturbed if isinstance(event, events.Evaluation)),
        key=lambda event: event.eval_loss,
    ).step

    job = replace(job, work_path=job.work_path.parent / "memorising-killed")
    trainer = server.start(replace(job, attempt=2))
    for event in trainer.events():
        if isinstance(event, events.CheckpointSaved) and event.step > best:
            kill(trainer.pid)
    assert server.line()["signal"] == 9
    second = server.start(replace(job, attempt=3))
    told = list(second.events())
    assert server.line()["exit_code"] == 0
    resumed = next(event.step for event in told if isinstance(event, events.Resumed))
    assert resumed > best
    assert told_after(resumed, told) == told_after(resumed, undisturbed)
    artifacts = []
    for last in (undisturbed[-1], told[-1]):
        assert isinstance(last, events.Published)
        assert last.best_step == best < last.step
        artifacts.append((job.artifacts_path / last.digest / "adapter_model.safetensors").read_bytes())
    assert artifacts[0] == artifacts[1]


def test_a_paused_job_goes_on_with_the_same_loss_curve(server: ForkServer, make_job: Jobs) -> None:
    settings = {"max_steps": 100, "checkpoint_every_steps": 1000, "eval_every_steps": 50, "dropout": 0.1}
    undisturbed = curve(server.start(make_job(job_id="unpaused", **settings)))
    assert server.line()["exit_code"] == 0

    job = make_job(job_id="unpaused", **settings)
    job = replace(job, work_path=job.work_path.parent / "paused")
    first = server.start(replace(job, attempt=2))
    seen: dict[int, tuple[float, float, int]] = {}
    for event in first.events():
        last = event
        if isinstance(event, events.Metrics):
            seen[event.step] = (event.loss, event.grad_norm, event.tokens)
            if event.step == 10:
                first.connection.sendall(b"pause\n")
    assert isinstance(last, events.Paused)
    assert last.step == max(seen) < 100
    assert server.line()["exit_code"] == 4

    second = server.start(replace(job, attempt=3))
    resumed = second.wait_for(events.Resumed)
    assert isinstance(resumed, events.Resumed)
    assert resumed.step == last.step
    rest = curve(second)
    assert server.line()["exit_code"] == 0
    assert not set(seen) & set(rest)
    assert {**seen, **rest} == undisturbed


def test_a_job_that_is_asked_to_pause_before_its_first_step_ends_at_once(
    server: ForkServer, make_job: Jobs
) -> None:
    trainer = server.start(make_job(job_id="early-pause", **ENDLESS))
    trainer.connection.sendall(b"pause\n")
    last = list(trainer.events())[-1]
    assert isinstance(last, events.Paused)
    assert server.line()["exit_code"] == 4


def test_the_end_of_standard_input_ends_server_and_trainers(base_of: Bases, make_job: Jobs) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="fs") as directory,
        ForkServer(Path(directory), preload=None) as server,
    ):
        trainers = [server.start(make_job(job_id=f"eof-{number}", **ENDLESS)) for number in range(2)]
        for trainer in trainers:
            trainer.wait_for(events.FirstStep)
        assert server.end() == 0
        assert not any(alive(trainer.pid) for trainer in trainers)


def test_trainers_do_not_outlive_a_server_that_is_killed(base_of: Bases, make_job: Jobs) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="fs") as directory,
        ForkServer(Path(directory), preload=None) as server,
    ):
        trainer = server.start(make_job(job_id="forsaken", **ENDLESS))
        trainer.wait_for(events.FirstStep)
        kill(server.process.pid)
        assert wait_until(lambda: not alive(trainer.pid))
