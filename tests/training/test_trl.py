"""TRL's SFTTrainer and DPOTrainer are the reference: same rows, same order, same start, same losses."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PromptTuningConfig, PromptTuningInit, TaskType, get_peft_model
from torch.utils.data import Sampler, SequentialSampler
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from tests.training.conftest import Bases
from tests.training.tiny import write_pairs
from trainer.adapter import target_modules_of
from trainer.channel import Channel
from trainer.config import Hyperparameters, Objective, Technique
from trainer.model import load_base
from trainer.optimization import learning_rate
from trainer.rendering import Renderer
from trainer.rows import Example, Row, StepOrder, load_pairs, load_rows
from trainer.steps import Trainee, train_step
from trainer.techniques import LowRank

STEPS = 20
RATES = {Technique.LORA: 5e-3, Technique.PROMPT_TUNING: 5e-2, Technique.FULL: 1e-3}


class _InOrder(SFTTrainer):  # type: ignore[misc]  # TRL has no types
    """Takes the rows as they come."""

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler[int]:
        return SequentialSampler(self.train_dataset)


class _PairsInOrder(DPOTrainer):  # type: ignore[misc]  # TRL has no types
    """Takes the pairs as they come, and as the tokens that they are."""

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler[int]:
        return SequentialSampler(self.train_dataset)

    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        return dataset


@pytest.mark.timeout(300)  # importing TRL alone takes up to a minute
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("technique", [Technique.LORA, Technique.PROMPT_TUNING, Technique.FULL])
def test_our_supervised_loss_curve_is_that_of_trl(
    base_of: Bases, rows_path: Path, tmp_path: Path, technique: Technique
) -> None:
    path = base_of("llama")
    rows = load_rows(rows_path, Renderer.from_directory(path), max_length=512)
    order = StepOrder(rows=rows, batch_size=4, seed=5)
    batches = [order.rows_of_step(step) for step in range(STEPS)]
    curve, theirs = both(path, technique, Objective.SUPERVISED, batches)
    dataset = [
        {"input_ids": list(row.token_ids), "completion_mask": [int(flag) for flag in row.trained]}
        for batch in batches
        for row in batch
    ]
    arguments = SFTConfig(
        **options(tmp_path, technique), completion_only_loss=True, gradient_checkpointing=False
    )
    compare(curve, _InOrder, theirs, arguments, dataset, path)


@pytest.mark.timeout(300)  # as above
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("technique", [Technique.LORA, Technique.FULL])
def test_our_preference_loss_curve_is_that_of_trl(
    base_of: Bases, tmp_path: Path, technique: Technique
) -> None:
    path = base_of("llama")
    pairs = load_pairs(write_pairs(tmp_path / "pairs.jsonl"), Renderer.from_directory(path), max_length=512)
    order = StepOrder(rows=pairs, batch_size=4, seed=5)
    batches = [order.rows_of_step(step) for step in range(STEPS)]
    curve, theirs = both(path, technique, Objective.PREFERENCE, batches)
    dataset = []
    for pair in (pair for batch in batches for pair in batch):
        cut = pair.chosen.trained.index(True)
        chosen, rejected = (_trained_from(row, cut) for row in pair.rows)
        prompt = list(pair.chosen.token_ids[:cut])
        dataset.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    arguments = DPOConfig(**options(tmp_path, technique), beta=0.1, gradient_checkpointing=False)
    compare(curve, _PairsInOrder, theirs, arguments, dataset, path)


def _trained_from(row: Row, cut: int) -> list[int]:
    """The answer, without what the template writes after the turn: TRL would train that as well."""
    end = len(row.trained) - row.trained[::-1].index(True)
    assert all(row.trained[cut:end])
    return list(row.token_ids[cut:end])


def both(
    path: Path, technique: Technique, objective: Objective, batches: Sequence[Sequence[Example]]
) -> tuple[list[float], torch.nn.Module]:
    """Our losses, and a model of PEFT or transformers that begins with the weights that ours began with."""
    settings = Hyperparameters(
        rank=4,
        alpha=8.0,
        dropout=0.0,
        virtual_tokens=4,
        learning_rate=RATES[technique],
        batch_size=4,
        warmup_ratio=0.0,
        max_grad_norm=1.0,
    )
    ours = Trainee.of(load_base(path, torch.float32), settings, torch.device("cpu"), technique, objective)
    theirs = counterpart(path, ours)
    ours.criterion.prepare(batches, lambda: None)
    quiet = Channel(lambda line: None)
    curve = [
        train_step(ours, batch, step, learning_rate(settings, step, STEPS), quiet)[0]
        for step, batch in enumerate(batches)
    ]
    return curve, theirs


def counterpart(path: Path, ours: Trainee) -> torch.nn.Module:
    base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    match ours.adapted:
        case LowRank() as adapted:
            modules = target_modules_of(adapted.model)
            theirs = get_peft_model(
                base, LoraConfig(r=4, lora_alpha=8, target_modules=modules, task_type="CAUSAL_LM")
            )
        case adapted if adapted.virtual_tokens:
            theirs = get_peft_model(
                base,
                PromptTuningConfig(
                    task_type=TaskType.CAUSAL_LM,
                    num_virtual_tokens=adapted.virtual_tokens,
                    prompt_tuning_init=PromptTuningInit.RANDOM,
                ),
            )
        case _:
            theirs = base
    trainable = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    for parameter, value in zip(trainable, ours.matrices.values(), strict=True):
        parameter.data.copy_(value.detach())
    return theirs


def options(output: Path, technique: Technique) -> dict[str, Any]:
    return {
        "output_dir": str(output),
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": RATES[technique],
        "weight_decay": Hyperparameters.weight_decay,
        "max_grad_norm": 1.0,
        "lr_scheduler_type": "cosine",
        "logging_steps": 1,
        "max_length": None,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def compare(
    curve: Sequence[float],
    trainer: type[SFTTrainer | DPOTrainer],
    model: torch.nn.Module,
    arguments: SFTConfig | DPOConfig,
    rows: Sequence[dict[str, list[int]]],
    path: Path,
) -> None:
    reference = trainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=AutoTokenizer.from_pretrained(path),
    )
    reference.train()
    expected = [entry["loss"] for entry in reference.state.log_history if "loss" in entry]
    assert len(expected) == STEPS
    assert expected[-1] < expected[0]
    assert curve == pytest.approx(expected, abs=1e-3)
