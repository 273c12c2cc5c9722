"""What an export gives is what training made: real weights, through the service, read by the libraries."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from hotlora import errors
from hotlora.aio import AsyncClient
from tests.contract.stage import GOOD_LINE, Stage, running
from tests.training.conftest import Jobs, Recorder
from tests.training.test_run import logprobs, published
from trainer.config import Technique
from trainer.events import Published
from trainer.merging import main

Tensors = Mapping[str, torch.Tensor]


async def exported(stage: Stage, technique: Technique, last: Published, target: Path) -> Path:
    """Make what was published a version, and export it; what it is not cannot be had."""
    await stage.upload(GOOD_LINE)
    await stage.job(technique=f"TECHNIQUE_{technique.name}")
    claimed = await stage.registry.claim_next_job("owner")
    assert claimed is not None
    await stage.registry.succeed_job(claimed.id, claimed.epoch, last)
    async with AsyncClient(f"127.0.0.1:{stage.server.port}") as client:
        directory = await client.export_adapter_version("adapters/support/versions/1", target)
        wrong = {Technique.FULL: "FORMAT_PEFT", Technique.PROMPT_TUNING: "FORMAT_MERGED"}.get(technique)
        if wrong is not None:
            with pytest.raises(errors.FailedPrecondition) as refused:
                await client.export_adapter_version(
                    "adapters/support/versions/1", target / "no", format=wrong
                )
            assert refused.value.reason == "FORMAT_UNSUITED"
        return directory


@pytest.mark.parametrize("technique", [Technique.LORA, Technique.PROMPT_TUNING, Technique.FULL])
async def test_an_exported_version_says_in_its_library_what_the_trainer_measured(
    make_job: Jobs, tmp_path: Path, technique: Technique
) -> None:
    recorder = Recorder()
    settings = {"virtual_tokens": 4} if technique is Technique.PROMPT_TUNING else {}
    job = make_job(technique=technique, **settings)
    directory = published(job, recorder)
    sequences = json.loads((directory / "MANIFEST.json").read_bytes())["canary"]["sequences"]
    async with running(tmp_path) as stage:
        target = await exported(stage, technique, recorder.of(Published)[-1], tmp_path / "export")

    assert not (target / "MANIFEST.json").exists(), "it holds stretches of training rows"
    if technique is Technique.FULL:
        model = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32)
    else:
        base = AutoModelForCausalLM.from_pretrained(job.base_model.path, dtype=torch.float32)
        model = PeftModel.from_pretrained(base, target)
    for sequence in sequences:
        tokens = sequence["token_ids"]
        # PEFT gives logits for virtual tokens, too.
        assert said(model, tokens) == pytest.approx(sequence["adapter_logprobs"], abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("technique", [Technique.LORA, Technique.QLORA])
def test_a_merged_model_says_what_base_and_adapter_say(
    make_job: Jobs, tmp_path: Path, family: str, technique: Technique
) -> None:
    job = make_job(family, technique=technique, use_rslora=True)
    adapter, target = published(job, Recorder()), tmp_path / "merged"
    target.mkdir()
    base_path = job.base_model.path
    main([str(base_path), str(adapter), str(target), "--threads", "1", "--nice", "0"])

    base = AutoModelForCausalLM.from_pretrained(base_path, dtype=torch.float32)
    tokens = torch.arange(3, 40)[None]
    with torch.no_grad():
        before = base(input_ids=tokens).logits
        beside = PeftModel.from_pretrained(base, adapter)(input_ids=tokens).logits
        model = AutoModelForCausalLM.from_pretrained(target, dtype="auto")
        merged = model(input_ids=tokens).logits
    assert model.dtype is torch.float32, "as the base's files"
    assert (merged - beside).abs().max() < 1e-4
    assert (merged - before).abs().max() > 1e-2
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (target / name).read_bytes() == (base_path / name).read_bytes()


def test_a_weak_adapter_is_not_lost_in_the_rounding_of_a_16_bit_model(make_job: Jobs, tmp_path: Path) -> None:
    job = make_job(learning_rate=1e-5, max_steps=2)
    adapter, target = published(job, Recorder()), tmp_path / "merged"
    target.mkdir()
    model = AutoModelForCausalLM.from_pretrained(job.base_model.path, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "base")
    main([str(tmp_path / "base"), str(adapter), str(target), "--threads", "1", "--nice", "0"])

    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    exact = PeftModel.from_pretrained(base, adapter).merge_and_unload().state_dict()
    merged = AutoModelForCausalLM.from_pretrained(target, dtype="auto")
    assert merged.dtype is torch.bfloat16
    assert kept(merged.state_dict(), before, exact) == pytest.approx(1, abs=0.1)
    nearest = {name: weight.bfloat16() for name, weight in exact.items()}
    assert kept(nearest, before, exact) < 0.8, "it is not weak"
    untouched = [name for name in exact if torch.equal(exact[name], before[name])]
    assert untouched
    assert all(torch.equal(merged.state_dict()[name].float(), before[name]) for name in untouched)


def kept(found: Tensors, before: Tensors, exact: Tensors) -> float:
    """Which share of what an adapter adds to weights is in those that were found."""
    deltas = {name: exact[name] - before[name] for name in exact}
    there = sum(float(((found[name].float() - before[name]) * delta).sum()) for name, delta in deltas.items())
    return there / sum(float((delta * delta).sum()) for delta in deltas.values())


def said(model: torch.nn.Module, token_ids: list[int]) -> list[float]:
    """Log-probabilities of the tokens, whatever stands in front of them."""
    if not isinstance(model, PeftModel) or not model.active_peft_config.is_prompt_learning:
        return logprobs(model, token_ids)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([token_ids])).logits[0, -len(token_ids) : -1]
    found: list[float] = logits.log_softmax(-1).gather(1, torch.tensor(token_ids[1:])[:, None])[:, 0].tolist()
    return found
