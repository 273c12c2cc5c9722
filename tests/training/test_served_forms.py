"""What the trainer publishes is what the service reads: each technique's artifact, as serving takes it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from service.artifacts import Form, Manifest, verify_files
from service.engine.packages import Packages
from service.serving.servable import unservable
from service.serving.soft_prompts import EmbeddingTable
from service.settings import Settings
from tests.training.conftest import Jobs, Recorder
from tests.training.test_run import published
from trainer.config import Technique


@pytest.mark.parametrize(
    ("technique", "form"),
    [
        (Technique.LORA, Form.ADAPTER),
        (Technique.QLORA, Form.ADAPTER),
        (Technique.PROMPT_TUNING, Form.PROMPT),
        (Technique.FULL, Form.MODEL),
    ],
)
def test_an_artifact_is_read_as_what_its_technique_makes(
    make_job: Jobs, technique: Technique, form: Form
) -> None:
    directory = published(make_job(technique=technique), Recorder())

    manifest = Manifest.read(directory)
    verify_files(directory, manifest)

    assert (manifest.form, manifest.digest) == (form, directory.name)
    assert (manifest.rank > 0) == (form is Form.ADAPTER)
    measured = {sequence.quantised_logprobs is not None for sequence in manifest.canary}
    assert measured == {technique is Technique.QLORA}


def test_a_trained_prompt_is_composed_with_the_bases_own_embeddings(make_job: Jobs) -> None:
    job = make_job(technique=Technique.PROMPT_TUNING)
    directory = published(job, Recorder())
    manifest = Manifest.read(directory)
    table = EmbeddingTable(job.base_model.path)

    prompt = table.read_prompt(directory, manifest.virtual_tokens)
    composed = table.compose(prompt, [5, 7])

    virtual = load_file(directory / "adapter_model.safetensors")["prompt_embeddings"]
    words = load_file(job.base_model.path / "model.safetensors")["model.embed_tokens.weight"]
    expected = torch.cat([virtual.to(words.dtype), words[[5, 7]]])
    assert composed.rows == expected.view(torch.uint8).numpy().tobytes()


def test_what_could_never_be_served_is_known_before_it_is_trained(make_job: Jobs, tmp_path: Path) -> None:
    base = make_job().base_model
    gemma = replace(base, path=tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gemma2", "hidden_size": 8}')
    some, none = [Settings(home=tmp_path, own_engines=number) for number in (1, 0)]
    bare = Packages(is_cpu_build=True, cpu_plugin=None)

    assert unservable(base, some) == {}
    assert unservable(gemma, none).keys() == {Technique.PROMPT_TUNING, Technique.FULL}
    assert "plugin" in unservable(base, some, packages=bare)[Technique.FULL]
