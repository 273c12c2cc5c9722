"""A run may start from a published version: with exactly its weights, or not at all."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import Jobs, Recorder
from tests.training.tiny import write_pairs
from trainer import events
from trainer.config import JobFile, Objective, StartVersion, Technique
from trainer.events import FailureReason, Verdict
from trainer.run import run


def trained(job: JobFile, dtype: torch.dtype = torch.float32) -> tuple[Recorder, Path]:
    """Run the job to its end; what it told, and the artifact's directory."""
    recorder = Recorder()
    assert run(job, recorder.channel, dtype=dtype) == 0, recorder.events
    last = recorder.events[-1]
    assert isinstance(last, events.Published)
    return recorder, job.artifacts_path / last.digest


def tensors_of(directory: Path) -> dict[str, torch.Tensor]:
    """All published weights."""
    return {
        name: tensor for path in directory.glob("*.safetensors") for name, tensor in load_file(path).items()
    }


def begun_at(directory: Path, job: JobFile) -> JobFile:
    """The job, starting from what lies in `directory`."""
    return replace(job, start_version=StartVersion(name="tiny@1", path=directory))


@pytest.mark.parametrize("technique", list(Technique))
def test_training_goes_on_from_exactly_the_published_weights(make_job: Jobs, technique: Technique) -> None:
    _, first = trained(make_job(job_id="first", technique=technique, validation_fraction=0.0))
    # A step too small to be seen in 16 bits publishes what it began with.
    still = make_job(
        job_id="second",
        technique=technique,
        validation_fraction=0.0,
        seed=7,
        max_steps=1,
        learning_rate=1e-12,
        weight_decay=0.0,
    )
    _, second = trained(begun_at(first, still))
    before, after = tensors_of(first), tensors_of(second)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name
    manifest = json.loads((second / "MANIFEST.json").read_bytes())
    assert manifest["start_version"] == {"name": "tiny@1", "digest": first.name}
    assert json.loads((first / "MANIFEST.json").read_bytes())["start_version"] is None


def test_a_continued_run_begins_with_the_loss_that_the_first_one_reached(make_job: Jobs) -> None:
    settings = {"learning_rate": 2e-2, "dropout": 0.0, "warmup_ratio": 0.0, "batch_size": 22}
    recorder, first = trained(make_job(job_id="first", max_steps=20, **settings))
    continued, _ = trained(begun_at(first, make_job(job_id="second", max_steps=2, **settings)))
    losses = [event.loss for event in recorder.of(events.Metrics)]
    assert continued.of(events.Metrics)[0].loss == pytest.approx(losses[-1], abs=0.1)
    assert continued.of(events.Metrics)[0].loss < 0.8 * losses[0]


@pytest.mark.parametrize(("technique", "rate"), [(Technique.LORA, 2e-2), (Technique.FULL, 3e-3)])
def test_the_verdict_of_a_continued_run_compares_it_with_the_version_and_the_base(
    make_job: Jobs, technique: Technique, rate: float
) -> None:
    settings = {"technique": technique, "dropout": 0.0, "warmup_ratio": 0.0, "batch_size": 22}
    recorder, first = trained(make_job(job_id="first", max_steps=12, learning_rate=rate, **settings))
    # Hardly a step: its training loss cannot fall, but that does not make it underfitted.
    still = {"learning_rate": 1e-6, "weight_decay": 0.0, **settings}
    continued, _ = trained(begun_at(first, make_job(job_id="second", max_steps=4, **still)))
    fit = continued.of(events.Fit)[-1]
    assert fit.verdict is Verdict.GOOD_FIT, fit.sentence
    assert "tiny@1 had learned such rows already" in fit.sentence
    reached = recorder.of(events.Evaluation)[-1].eval_loss
    assert fit.version_eval_loss == pytest.approx(reached, rel=2e-2)  # rounded to 16 bits since
    untrained, _ = trained(make_job(job_id="base", max_steps=1, **still))
    assert fit.base_eval_loss == pytest.approx(untrained.of(events.Evaluation)[0].eval_loss, rel=1e-3)


def refused(job: JobFile) -> str:
    """Run a job that cannot start, and give its last sentence."""
    recorder = Recorder()
    assert run(job, recorder.channel, dtype=torch.float32) == 1
    failed = recorder.events[-1]
    assert isinstance(failed, events.Failed)
    assert failed.reason is FailureReason.BASE_MODEL_ERROR
    assert "Training cannot start from tiny@1" in failed.message
    return failed.message


def test_a_version_that_does_not_fit_is_refused_saying_why(make_job: Jobs) -> None:
    _, first = trained(make_job(job_id="first"))
    second = begun_at(first, make_job(job_id="second"))
    other = replace(second, base_model=replace(second.base_model, revision="sha256:1"))
    assert "revision sha256:0" in refused(other)
    assert "trained with lora" in refused(
        begun_at(first, make_job(job_id="full", technique=Technique.FULL, learning_rate=1e-4))
    )
    assert "not [8, " in refused(begun_at(first, make_job(job_id="rank", rank=8)))
    fewer = begun_at(first, make_job(job_id="fewer", target_modules=("q_proj",)))
    assert "is not trained here" in refused(fewer)
    _, small = trained(replace(fewer, start_version=None))
    assert "it has no base_model" in refused(begun_at(small, make_job(job_id="more")))


def test_a_version_whose_files_were_touched_is_refused(make_job: Jobs) -> None:
    _, first = trained(make_job(job_id="first"))
    weights = first / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "not as they were published" in refused(begun_at(first, make_job(job_id="second")))


def test_a_resumed_run_does_not_start_from_the_version_again(make_job: Jobs) -> None:
    _, first = trained(make_job(job_id="first"))
    job = begun_at(first, make_job(job_id="second", max_steps=8, checkpoint_every_steps=4))
    whole, _ = trained(job)
    resumed, _ = trained(replace(job, attempt=2, artifacts_path=job.artifacts_path / "again"))
    assert [event.step for event in resumed.of(events.Resumed)] == [4]
    assert [event.loss for event in resumed.of(events.Metrics)] == [
        event.loss for event in whole.of(events.Metrics) if event.step > 4
    ]


@pytest.mark.parametrize(
    ("technique", "dtype"),
    [
        (Technique.LORA, torch.float32),
        (Technique.PROMPT_TUNING, torch.float32),
        (Technique.FULL, torch.float32),
        (Technique.FULL, torch.bfloat16),
    ],
)
def test_the_reference_of_preferences_is_the_version_also_after_a_resumption(
    make_job: Jobs, tmp_path: Path, technique: Technique, dtype: torch.dtype
) -> None:
    settings = {
        "technique": technique,
        "objective": Objective.PREFERENCE,
        "dataset": write_pairs(tmp_path / "pairs.jsonl"),
        "learning_rate": {Technique.PROMPT_TUNING: 0.3, Technique.FULL: 3e-3}.get(technique, 2e-2),
        "virtual_tokens": 4,
        "dropout": 0.0,
        "warmup_ratio": 0.0,
    }
    _, first = trained(make_job(job_id="first", **settings), dtype)
    job = begun_at(first, make_job(job_id="second", max_steps=8, checkpoint_every_steps=4, **settings))
    whole, _ = trained(job, dtype)
    told = whole.of(events.Metrics)
    # Nothing has moved yet, so no answer is preferred to the other.
    assert (told[0].loss, told[0].reward_margin) == (pytest.approx(math.log(2), abs=1e-6), 0.0)
    assert told[-1].loss < told[0].loss
    resumed, _ = trained(replace(job, attempt=2, artifacts_path=job.artifacts_path / "again"), dtype)
    again = resumed.of(events.Metrics)
    assert [event.step for event in again] == [5, 6, 7, 8]
    assert [(event.loss, event.reward_margin) for event in again] == [
        (event.loss, event.reward_margin) for event in told[4:]
    ]
