"""TRL's SFTTrainer is the reference: same rows, same order, same start, same losses."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch.utils.data import Sampler, SequentialSampler
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from tests.training.conftest import Bases
from trainer.adapter import target_modules_of
from trainer.channel import Channel
from trainer.config import Hyperparameters
from trainer.model import load_base
from trainer.optimization import learning_rate
from trainer.rendering import Renderer
from trainer.rows import StepOrder, load_rows
from trainer.steps import Trainee, train_step

STEPS = 20
SETTINGS = Hyperparameters(
    rank=4, alpha=8.0, dropout=0.0, learning_rate=5e-3, batch_size=4, warmup_ratio=0.0, max_grad_norm=1.0
)


class _InOrder(SFTTrainer):  # type: ignore[misc]  # TRL has no types
    """Takes the rows as they come."""

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler[int]:
        return SequentialSampler(self.train_dataset)


@pytest.mark.timeout(300)  # importing TRL alone takes up to a minute
@pytest.mark.filterwarnings("ignore")
def test_our_loss_curve_is_that_of_trl(base_of: Bases, rows_path: Path, tmp_path: Path) -> None:
    path = base_of("llama")
    rows = load_rows(rows_path, Renderer.from_directory(path), max_length=512)
    order = StepOrder(rows=rows, batch_size=4, seed=5)
    batches = [order.rows_of_step(step) for step in range(STEPS)]

    ours = Trainee.of(load_base(path, torch.float32), SETTINGS, torch.device("cpu"))
    start = [matrix.detach().clone() for matrix in ours.matrices.values()]
    quiet = Channel(lambda line: None)
    curve = [
        train_step(ours, batch, step, learning_rate(SETTINGS, step, STEPS), quiet)[0]
        for step, batch in enumerate(batches)
    ]

    base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=target_modules_of(ours.adapted.model), task_type="CAUSAL_LM"
    )
    theirs = get_peft_model(base, config)
    trainable = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    for parameter, value in zip(trainable, start, strict=True):
        parameter.data.copy_(value)
    dataset = Dataset.from_list(
        [
            {"input_ids": list(row.token_ids), "completion_mask": [int(flag) for flag in row.trained]}
            for batch in batches
            for row in batch
        ]
    )
    arguments = SFTConfig(
        output_dir=str(tmp_path),
        max_steps=STEPS,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=SETTINGS.learning_rate,
        weight_decay=SETTINGS.weight_decay,
        max_grad_norm=SETTINGS.max_grad_norm,
        lr_scheduler_type="cosine",
        logging_steps=1,
        completion_only_loss=True,
        gradient_checkpointing=False,
        max_length=None,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    reference = _InOrder(
        model=theirs,
        args=arguments,
        train_dataset=dataset,
        processing_class=AutoTokenizer.from_pretrained(path),
    )
    reference.train()
    expected = [entry["loss"] for entry in reference.state.log_history if "loss" in entry]

    assert expected[-1] < expected[0]
    assert curve == pytest.approx(expected, abs=1e-3)
