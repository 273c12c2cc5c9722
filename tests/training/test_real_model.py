"""The embedded default, trained for real on the sample data for a few steps."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.training.conftest import Recorder
from tests.training.processes import ROOT
from trainer import events
from trainer.config import BaseModel, Hyperparameters, JobFile, Technique
from trainer.run import run


@pytest.mark.training
@pytest.mark.timeout(600)
def test_the_embedded_default_learns_the_sample_data(base_model_dir: Path, tmp_path: Path) -> None:
    dataset = ROOT / "examples" / "triage" / "train.jsonl"
    job = JobFile(
        job_id="real",
        attempt=1,
        adapter_id="triage",
        base_model=BaseModel(name="smollm2-135m-instruct", path=base_model_dir, revision="sha256:0"),
        dataset_path=dataset,
        dataset_sha256=hashlib.sha256(dataset.read_bytes()).hexdigest(),
        technique=Technique.LORA,
        hyperparameters=Hyperparameters(
            max_steps=6, batch_size=4, validation_fraction=0.02, learning_rate=1e-3, warmup_ratio=0.0
        ),
        work_path=tmp_path / "work",
        artifacts_path=tmp_path / "artifacts",
    )
    recorder = Recorder()
    assert run(job, recorder.channel) == 0, recorder.events
    losses = [event.eval_loss for event in recorder.of(events.Evaluation)]
    assert losses[-1] < 0.8 * losses[0]
    published = recorder.events[-1]
    assert isinstance(published, events.Published)
    manifest = json.loads((job.artifacts_path / published.digest / "MANIFEST.json").read_bytes())
    assert len(manifest["canary"]["sequences"]) == 4
    changes = [
        abs(adapted - base)
        for sequence in manifest["canary"]["sequences"]
        for base, adapted in zip(sequence["base_logprobs"], sequence["adapter_logprobs"], strict=True)
    ]
    assert sum(changes) / len(changes) > 0.05
