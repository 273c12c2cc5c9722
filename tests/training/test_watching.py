"""A run that watches itself: the best state is published, patience ends it, and the verdict is told."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import Jobs, Recorder
from tests.training.tiny import write_chance
from trainer import events
from trainer.config import JobFile
from trainer.events import FailureReason, Verdict
from trainer.rows import split_validation
from trainer.run import run

MEMORISING = {
    "learning_rate": 2e-2,
    "rank": 16,
    "alpha": 16.0,
    "schedule": "constant",
    "warmup_ratio": 0.0,
    "dropout": 0.0,
    "validation_fraction": 0.5,
    "eval_every_steps": 4,
    "max_steps": 60,
}
"""Eight rows of chance over and over, which cannot help on the other eight."""


@pytest.fixture
def chance(tmp_path: Path) -> Path:
    """A dataset without a rule."""
    return write_chance(tmp_path / "chance.jsonl")


def trained(job: JobFile) -> tuple[Recorder, Path]:
    """Run the job to its end; what it told, and the artifact's directory."""
    recorder = Recorder()
    assert run(job, recorder.channel, dtype=torch.float32) == 0, recorder.events
    last = recorder.events[-1]
    assert isinstance(last, events.Published)
    return recorder, job.artifacts_path / last.digest


def lowest(recorder: Recorder) -> events.Evaluation:
    """The evaluation with the lowest loss."""
    return min(recorder.of(events.Evaluation), key=lambda event: event.eval_loss)


def test_the_state_of_the_best_evaluation_is_published_and_not_the_last_one(
    make_job: Jobs, chance: Path
) -> None:
    recorder, directory = trained(make_job(job_id="long", dataset=chance, **MEMORISING))
    best = lowest(recorder)
    assert best.step < 60
    # The same run cut off there has no later state to choose.
    ended_there, expected = trained(
        make_job(job_id="short", dataset=chance, **{**MEMORISING, "max_steps": best.step})
    )
    assert lowest(ended_there).step == best.step
    tensors = load_file(directory / "adapter_model.safetensors")
    for name, tensor in load_file(expected / "adapter_model.safetensors").items():
        assert torch.equal(tensor, tensors[name]), name
    assert [event.best_step for event in recorder.of(events.Saving)] == [best.step]
    assert [event.best_step for event in recorder.of(events.Published)] == [best.step]
    assert [event.step for event in recorder.of(events.Published)] == [60]
    metrics = json.loads((directory / "MANIFEST.json").read_bytes())["metrics"]
    assert (metrics["best_step"], metrics["steps"]) == (best.step, 60)
    assert metrics["eval_loss"] == best.eval_loss
    assert metrics["verdict"] == "OVERFITTING"


def test_overfitting_is_told_while_it_begins_and_at_the_end(make_job: Jobs, chance: Path) -> None:
    recorder, _ = trained(make_job(dataset=chance, **MEMORISING))
    told = recorder.of(events.Fit)
    assert told[0].verdict is Verdict.OVERFITTING
    assert told[0].step < 60
    assert told[-1].verdict is Verdict.OVERFITTING
    assert (told[-1].step, told[-1].since_step) == (60, lowest(recorder).step)
    assert recorder.events.index(told[-1]) == recorder.events.index(recorder.of(events.Saving)[0]) - 1
    alarms = [fit.verdict for fit in told]
    assert all(one != other for one, other in pairwise(alarms[:-1]))


def test_patience_ends_a_run_that_gets_no_better(make_job: Jobs, chance: Path) -> None:
    recorder, directory = trained(make_job(dataset=chance, early_stopping_patience=2, **MEMORISING))
    steps = [event.step for event in recorder.of(events.Evaluation)]
    best = lowest(recorder).step
    assert steps[-1] == best + 2 * 4 < 60
    assert recorder.of(events.Metrics)[-1].step == steps[-1]
    fit = recorder.of(events.Fit)[-1]
    assert fit.stopped_early
    assert (fit.step, fit.best_step) == (steps[-1], best)
    metrics = json.loads((directory / "MANIFEST.json").read_bytes())["metrics"]
    assert (metrics["steps"], metrics["best_step"]) == (steps[-1], best)


def test_a_run_without_rows_set_aside_publishes_its_last_step_and_says_that_little_is_known(
    make_job: Jobs,
) -> None:
    recorder, _ = trained(make_job(validation_fraction=0.0))
    (fit,) = recorder.of(events.Fit)
    assert fit.verdict is Verdict.TOO_LITTLE_KNOWN
    assert "no rows were set aside" in fit.sentence
    assert [event.best_step for event in recorder.of(events.Published)] == [6]
    assert not recorder.of(events.Evaluation)


@pytest.mark.parametrize("seed", [1, 11])
def test_rows_set_aside_that_are_trained_on_too_are_counted_by_the_split_of_the_run(
    make_job: Jobs, tmp_path: Path, seed: int
) -> None:
    numbers = [0, 1, 2, 3, 4, 4, 4, 5, 5, 6]
    rows = [{"prompt": f"number {number}", "completion": f"{place}"} for place, number in enumerate(numbers)]
    path = tmp_path / "repeated.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    training, aside = split_validation(numbers, 0.3, seed)
    leaked = sum(number in training for number in aside)

    recorder, _ = trained(make_job(dataset=path, seed=seed, validation_fraction=0.3))

    assert {event.leaked_rows for event in recorder.of(events.Evaluation)} == {leaked}
    told = f"But {leaked} of the 3 rows set aside" in recorder.of(events.Fit)[-1].sentence
    assert told == bool(leaked)


def test_a_run_that_breaks_is_told_to_have_diverged(make_job: Jobs) -> None:
    recorder = Recorder()
    job = make_job(learning_rate=1e30, max_grad_norm=0.0, max_steps=50, schedule="constant")
    assert run(job, recorder.channel, dtype=torch.float32) == 1
    fit = recorder.of(events.Fit)[-1]
    assert fit.verdict is Verdict.DIVERGED
    failed = recorder.events[-1]
    assert isinstance(failed, events.Failed)
    assert failed.reason is FailureReason.NAN_LOSS
    assert f"step {fit.since_step}" in fit.sentence
