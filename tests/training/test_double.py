"""The doubles of trainer, probe, import and merge against the real ones: the same orders, what each told and
wrote, how it ended."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest

from service.artifacts import Form, Manifest, verify_files
from tests.training.conftest import Bases, Jobs
from tests.training.processes import ROOT, ForkServer, kill
from tests.training.test_importing import saved
from trainer import events
from trainer.config import JobFile, Technique
from trainer.planning import Calibration

ENDLESS = {"max_steps": 1_000_000, "validation_fraction": 0.0}
NAN_LEARNING_RATE = 1e30


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Both fork servers."""

    real: ForkServer
    double: ForkServer
    plan_path: Path
    """What the double's trainers do."""


@pytest.fixture(scope="module")
def pair(base_of: Bases) -> Iterator[Pair]:
    """One of each for all tests; the real one's imports are the expensive part."""
    with tempfile.TemporaryDirectory(prefix="fs") as name:
        directory = Path(name)
        plan_path = directory / "plan.json"
        plan_path.write_text("{}")
        for side in ("real", "double"):
            (directory / side).mkdir()
        command = (sys.executable, "-m", "tests.doubles.trainer", "--plan", str(plan_path))
        base = base_of("llama")
        with (
            ForkServer(directory / "real", preload=base) as real,
            ForkServer(directory / "double", preload=base, command=command) as double,
        ):
            yield Pair(real=real, double=double, plan_path=plan_path)


Course = tuple[list[str], object]
"""Kinds of events, several metrics in a row as one, and the exit code; negative: the signal."""


def whole(server: ForkServer, job: JobFile) -> Course:
    """A run that nobody disturbs."""
    told = [event.kind for event in server.start(job).events()]
    return _besides_pulse(told), server.line()["exit_code"]


def asked_to(wish: bytes, after: type[events.TrainerEvent]) -> Callable[[ForkServer, JobFile], Course]:
    """A run that is told something once an event has come."""

    def course(server: ForkServer, job: JobFile) -> Course:
        trainer = server.start(job)
        told = []
        for event in trainer.events():
            told.append(event.kind)
            if isinstance(event, after):
                trainer.connection.sendall(wish)
        return _in_short(told), server.line()["exit_code"]

    return course


def paused_and_resumed(server: ForkServer, job: JobFile) -> Course:
    """A run of two attempts, the first of which pauses after its second step."""
    trainer = server.start(job)
    told = []
    for event in trainer.events():
        told.append(event.kind)
        if isinstance(event, events.FirstStep):
            trainer.connection.sendall(b"pause\n")
    assert server.line()["exit_code"] == 4
    second = server.start(dataclasses.replace(job, attempt=2))
    told += [event.kind for event in second.events()]
    return _in_short(told), server.line()["exit_code"]


def killed_and_resumed(server: ForkServer, job: JobFile) -> Course:
    """A run of two attempts, the first of which is killed once it has a checkpoint.

    The double has done its steps before a signal comes, and so waits for `go` after that checkpoint."""
    go = job.work_path / "go"
    trainer = server.start(job)
    for event in trainer.events():
        if isinstance(event, events.CheckpointSaved):
            kill(trainer.pid)
    assert server.line()["signal"] == 9
    go.touch()
    second = server.start(dataclasses.replace(job, attempt=2))
    told = [event.kind for event in second.events()]
    return _in_short(told), server.line()["exit_code"]


def beside(job: JobFile) -> JobFile:
    """The same job in a directory of its own."""
    return dataclasses.replace(job, work_path=job.work_path.with_name(f"{job.job_id}-of-the-double"))


def _in_short(told: list[str]) -> list[str]:
    return [kind for kind, _ in groupby(_besides_pulse(told))]


def _besides_pulse(told: list[str]) -> list[str]:
    """Without what only a slow machine makes a trainer say."""
    return [kind for kind in told if kind not in (events.Heartbeat.kind, events.Working.kind)]


SCENARIOS: dict[str, tuple[Callable[[ForkServer, JobFile], Course], dict[str, object]]] = {
    "whole": (whole, {}),
    "without rows set aside": (whole, {"validation_fraction": 0.0}),
    "with its own intervals": (whole, {"eval_every_steps": 2, "checkpoint_every_steps": 3}),
    "that logs seldom": (whole, {"log_every_steps": 4}),
    "cancelled": (asked_to(b"cancel\n", events.FirstStep), ENDLESS),
    "paused": (asked_to(b"pause\n", events.FirstStep), ENDLESS),
    "paused and resumed": (paused_and_resumed, {"max_steps": 200, "eval_every_steps": 200}),
    "killed and resumed": (killed_and_resumed, {"max_steps": 40, "checkpoint_every_steps": 20}),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_double_tells_what_a_trainer_tells_and_ends_as_it_does(
    pair: Pair, make_job: Jobs, name: str
) -> None:
    course, settings = SCENARIOS[name]
    job = make_job(job_id=name.replace(" ", "-"), **settings)
    gate = {"gate": str(beside(job).work_path / "go"), "gate_step": 21}
    pair.plan_path.write_text(json.dumps({"tiny": gate if course is killed_and_resumed else {}}))

    real, double = course(pair.real, job), course(pair.double, beside(job))

    assert double == real


def test_the_double_fails_as_a_trainer_does_whose_loss_is_no_number(pair: Pair, make_job: Jobs) -> None:
    pair.plan_path.write_text(json.dumps({"tiny": {"fail_at_step": 3}}))
    job = make_job(job_id="nan", learning_rate=NAN_LEARNING_RATE, schedule="constant", max_steps=30)

    real, real_code = whole(pair.real, job)
    double, double_code = whole(pair.double, beside(job))
    pair.plan_path.write_text("{}")

    assert double[-2:] == real[-2:] == ["fit", "failed"]
    assert double_code == real_code


def test_the_double_publishes_what_the_service_reads_as_it_reads_a_trainers(
    pair: Pair, make_job: Jobs
) -> None:
    job = make_job(job_id="published")
    read = []
    for server, each in ((pair.real, job), (pair.double, beside(job))):
        told = list(server.start(each).events())
        assert server.line()["exit_code"] == 0
        last = told[-1]
        assert isinstance(last, events.Published)
        manifest = Manifest.read(job.artifacts_path / last.digest)
        verify_files(job.artifacts_path / last.digest, manifest)
        assert manifest.digest == last.digest
        read.append((manifest.form, manifest.rank, manifest.base_name, sorted(manifest.files), last.rank))

    assert read[0] == read[1]
    assert read[0][0] is Form.ADAPTER


WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": ""}
"""The double's machine has none."""


def ran(module: str, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program as the service runs one."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, words), "--threads", "1"],
        cwd=ROOT,
        env={**os.environ, **WITHOUT_GPU, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def probed(module: str, base: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return ran(module, base, "--technique", Technique.LORA, **environment)


def test_the_double_of_a_probe_says_what_a_probe_says(base_of: Bases) -> None:
    said = []
    for module in ("trainer.probe", "tests.doubles.probe"):
        run = probed(module, base_of("llama"))
        assert run.returncode == 0, run.stderr
        (line,) = run.stdout.splitlines()
        said.append(Calibration.decode(line))

    real, double = said
    assert (double.technique, double.device) == (real.technique, real.device)
    assert [sample.load for sample in double.samples] == [sample.load for sample in real.samples]
    for calibration in said:
        assert calibration.number_bytes in {2, 4}
        for sample in calibration.samples:
            assert 0 < calibration.runtime_bytes < sample.peak_bytes
            assert sample.step_seconds > 0


def test_the_double_of_a_probe_fails_as_one_does_that_finds_no_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    for run in (
        probed("trainer.probe", tmp_path),
        probed("tests.doubles.probe", tmp_path, HOTLORA_PROBE_DOUBLE="fail"),
    ):
        assert run.returncode == 1
        assert run.stdout == ""
        assert run.stderr


def imported(module: str, base: Path, source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    target.mkdir()
    return ran(module, base, source, target, "--name", "tiny", "--revision", "sha256:0")


@pytest.mark.parametrize("rslora", [False, True])
def test_the_double_of_an_import_writes_and_says_what_an_import_does(
    base_of: Bases, tmp_path: Path, *, rslora: bool
) -> None:
    source = saved(base_of("llama"), tmp_path / "source", rslora=rslora)
    wrote, listed = [], []
    for module in ("trainer.importing", "tests.doubles.importing"):
        target = tmp_path / module
        run = imported(module, base_of("llama"), source, target)
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout) == {"problems": []}
        manifest = Manifest.read(target)
        verify_files(target, manifest)
        fields = json.loads((target / "MANIFEST.json").read_bytes())
        assert fields.pop("create_time") > 0
        sequences = fields.pop("canary")["sequences"]
        assert len({tuple(sequence["token_ids"]) for sequence in sequences}) == len(sequences)
        fields["files"] = {name: sorted(entry) for name, entry in fields["files"].items()}
        wrote.append((fields, sorted(sequences[0])))
        listed.append((manifest.form, sorted(file.name for file in target.iterdir())))

    assert wrote[0] == wrote[1]
    assert listed[0] == listed[1]


def test_the_double_of_a_merge_writes_what_a_merge_does(base_of: Bases, tmp_path: Path) -> None:
    base, wrote = base_of("llama"), []
    adapter = saved(base, tmp_path / "adapter", rslora=False)
    for module in ("trainer.merging", "tests.doubles.merging"):
        target = tmp_path / module
        target.mkdir()
        run = ran(module, base, adapter, target)
        assert (run.returncode, run.stdout) == (0, ""), run.stderr
        config = json.loads((target / "config.json").read_bytes())
        wrote.append((sorted(file.name for file in target.iterdir()), config))

    assert wrote[0] == wrote[1]


@pytest.mark.parametrize("program", ["importing", "merging"])
def test_the_doubles_of_import_and_merge_fail_as_they_do_without_an_adapter(
    base_of: Bases, tmp_path: Path, program: str
) -> None:
    (tmp_path / "nothing").mkdir()
    of_the_base = ("--name", "tiny", "--revision", "sha256:0") if program == "importing" else ()
    for package in ("trainer", "tests.doubles"):
        target = tmp_path / package
        target.mkdir()
        run = ran(f"{package}.{program}", base_of("llama"), tmp_path / "nothing", target, *of_the_base)
        assert (run.returncode, run.stdout) == (1, "")
        assert run.stderr
