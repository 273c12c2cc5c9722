"""What an import makes of an adapter that PEFT saved, with the real base in memory."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from service.artifacts import Manifest, verify_files
from service.changes import Changes
from service.disk import Disk
from service.engine import fleet
from service.importing import FileName, Importer
from service.registry import Registry
from service.serving import Bases as ServedBases
from service.settings import Settings
from tests.bases import made_base
from tests.training.conftest import Bases
from tests.training.test_run import logprobs
from trainer.config import BaseModel
from trainer.importing import CONFIG_FILE, WEIGHTS_FILE, bring_in
from trainer.rendering import Renderer


def saved(base: Path, directory: Path, *, rslora: bool, strength: float = 0.3) -> Path:
    """An adapter on two kinds of modules, one layer alone, as PEFT saves it."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    fan = model.config.model_type == "gpt2"
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=rslora,
        target_modules=["c_attn"] if fan else ["q_proj", "down_proj"],
        layers_to_transform=[0],
        fan_in_fan_out=fan,
    )
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=strength)
            parameter.data.copy_(parameter.data.bfloat16())
    adapted.save_pretrained(directory)
    return directory


@pytest.mark.parametrize(("family", "rslora"), [("llama", False), ("llama", True), ("gpt2", False)])
def test_an_import_says_what_peft_says_of_the_adapter(
    base_of: Bases, tmp_path: Path, family: str, *, rslora: bool
) -> None:
    source, target = saved(base_of(family), tmp_path / "source", rslora=rslora), tmp_path / "target"
    target.mkdir()
    assert (
        bring_in(base_of(family), source, target, base_name="tiny", revision="sha256:0", dtype=torch.float32)
        == []
    )

    manifest = Manifest.read(target)
    verify_files(target, manifest)
    assert (manifest.rank, manifest.base_name, manifest.base_revision) == (4, "tiny", "sha256:0")
    base = AutoModelForCausalLM.from_pretrained(base_of(family), dtype=torch.float32)
    assert len(manifest.canary) >= 3
    before = [logprobs(base, list(sequence.token_ids)) for sequence in manifest.canary]
    adapted = PeftModel.from_pretrained(base, source)
    for sequence, expected in zip(manifest.canary, before, strict=True):
        assert sequence.base_logprobs == pytest.approx(expected, abs=1e-4)
        found = logprobs(adapted, list(sequence.token_ids))
        assert sequence.adapter_logprobs == pytest.approx(found, abs=1e-4)
        assert sequence.adapter_logprobs != pytest.approx(expected, abs=5e-2)
    again = AutoModelForCausalLM.from_pretrained(base_of(family), dtype=torch.float32)
    rewritten = PeftModel.from_pretrained(again, target)
    tokens = list(manifest.canary[0].token_ids)
    assert logprobs(rewritten, tokens) == pytest.approx(logprobs(adapted, tokens), abs=1e-4)


def test_weights_that_do_not_fit_are_all_told_and_nothing_is_written(base_of: Bases, tmp_path: Path) -> None:
    source, target = saved(base_of("llama"), tmp_path / "source", rslora=False), tmp_path / "target"
    target.mkdir()
    tensors = load_file(source / "adapter_model.safetensors")
    down, query = [name for name in tensors if "lora_A" in name]
    tensors[down][0, 0] = torch.nan
    tensors[query] = tensors[query][:, :-1].contiguous()
    tensors[query.replace("layers.0", "layers.77")] = torch.ones(4, 4)
    save_file(tensors, source / "adapter_model.safetensors")

    problems = bring_in(
        base_of("llama"), source, target, base_name="tiny", revision="sha256:0", dtype=torch.float32
    )

    told = json.dumps(problems)
    assert len(problems) == 3
    for sentence in ("no such module", "not finite", "fits"):
        assert sentence in told
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(("strength", "conversations"), [(0.02, 20), (1.0, 4)])
def test_the_less_an_adapter_does_the_more_is_measured(
    base_of: Bases, tmp_path: Path, strength: float, conversations: int
) -> None:
    source, target = (
        saved(base_of("llama"), tmp_path / "source", rslora=False, strength=strength),
        tmp_path / "t",
    )
    target.mkdir()
    bring_in(base_of("llama"), source, target, base_name="tiny", revision="sha256:0", dtype=torch.float32)
    canary = Manifest.read(target).canary
    assert len({sequence.token_ids for sequence in canary}) == len(canary) == conversations


async def test_the_service_has_the_real_program_make_a_version(base_of: Bases, tmp_path: Path) -> None:
    source = saved(base_of("llama"), tmp_path / "source", rslora=False)
    (tmp_path / "artifacts").mkdir()

    async def pieces() -> AsyncIterator[FileName | bytes]:
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            yield FileName(name)
            yield (source / name).read_bytes()

    async with Registry.open(f"sqlite+aiosqlite:///{tmp_path}/registry.db", changes=Changes()) as registry:
        model = BaseModel(name="tiny", path=base_of("llama"), revision="sha256:0")
        settings = Settings(home=tmp_path, engine_max_rank=8)
        engines = fleet(settings, base=model, changes=Changes())
        base = made_base(model, engines, renderer=Renderer.from_directory(model.path))
        importer = Importer(
            registry=registry,
            bases=ServedBases([base]),
            directory=tmp_path / "imports",
            artifacts_dir=tmp_path / "artifacts",
            disk=Disk(directory=tmp_path, min_free_bytes=0),
            threads=1,
        )
        version = await importer.take("mine", base, pieces())

    manifest = Manifest.read(tmp_path / "artifacts" / version.digest)
    verify_files(tmp_path / "artifacts" / version.digest, manifest)
    assert (version.model, manifest.digest, manifest.rank) == ("mine@1", version.digest, 4)


def test_an_adapter_without_any_effect_is_refused(base_of: Bases, tmp_path: Path) -> None:
    source = saved(base_of("llama"), tmp_path / "source", rslora=False, strength=0.0)
    (tmp_path / "target").mkdir()
    (problem,) = bring_in(base_of("llama"), source, tmp_path / "target", base_name="tiny", revision="0")
    assert "no effect" in problem["description"]
