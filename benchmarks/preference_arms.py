"""The arms of the preferences' benchmark, each to be run in a process of its own.

    python -m benchmarks.preference_arms ARM BASE_MODEL_DIR --steps N --rows N

trains an adapter of rank 16 on every linear layer by direct preference optimisation in 32 bits: the triage
messages with their own label as the wanted answer and the next message's other label as the unwanted one, in
one order and from the same first weights in both arms. It writes what `benchmarks.trainer_arms` writes.
"""

import argparse
import contextlib
import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from benchmarks.trainer_arms import TRAIN_PATH, Report, our_first_weights, trained_by_us
from trainer.config import Hyperparameters, Objective, Schedule
from trainer.rendering import Renderer
from trainer.rows import StepOrder, load_pairs

LEARNING_RATE = 2e-5


def main() -> None:
    """Run one arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arm", choices=("ours_dpo", "trl_dpo"))
    parser.add_argument("base", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rows", type=int, required=True, help="pairs of an optimizer step")
    arguments = parser.parse_args()
    settings = Hyperparameters(
        dropout=0.0,
        learning_rate=LEARNING_RATE,
        max_steps=arguments.steps,
        batch_size=arguments.rows,
        warmup_ratio=0.0,
        schedule=Schedule.CONSTANT,
        validation_fraction=0.0,
        eval_every_steps=arguments.steps,
        checkpoint_every_steps=arguments.steps,
    )
    report = Report()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        pairs = write_pairs(Path(folder) / "pairs.jsonl")
        if arguments.arm == "ours_dpo":
            trained_by_us(
                arguments.base, settings, Path(folder), report, dataset=pairs, objective=Objective.PREFERENCE
            )
        else:
            trained_by_trl(arguments.base, settings, Path(folder), report, pairs)


def write_pairs(path: Path) -> Path:
    """The triage messages, each with its answer and another's."""
    rows = [json.loads(line)["messages"] for line in TRAIN_PATH.read_text().splitlines()]
    lines = []
    for index, messages in enumerate(rows):
        *prompt, chosen = messages
        others = itertools.chain(rows[index + 1 :], rows)
        rejected = next(other[-1] for other in others if other[-1]["content"] != chosen["content"])
        lines.append(json.dumps({"prompt": prompt, "chosen": [chosen], "rejected": [rejected]}))
    path.write_text("\n".join(lines) + "\n")
    return path


def trained_by_trl(base: Path, settings: Hyperparameters, folder: Path, report: Report, path: Path) -> None:
    """DPOTrainer on the same tokens."""
    from datasets import Dataset  # noqa: PLC0415  (our arm must not pay for the memory of either)
    from trl import DPOConfig, DPOTrainer  # type: ignore[attr-defined]  # noqa: PLC0415

    pairs = load_pairs(path, Renderer.from_directory(base), max_length=settings.max_sequence_length)
    order = StepOrder(rows=pairs, batch_size=settings.batch_size, seed=settings.seed)
    steps = settings.max_steps or 0
    ordered = [pair for step in range(steps) for pair in order.rows_of_step(step)]
    rows = []
    for pair in ordered:
        cut = pair.chosen.trained.index(True)
        answers = [
            list(row.token_ids[cut : len(row.trained) - row.trained[::-1].index(True)]) for row in pair.rows
        ]
        prompt = list(pair.chosen.token_ids[:cut])
        rows.append({"prompt_ids": prompt, "chosen_ids": answers[0], "rejected_ids": answers[1]})
    # First: the base that they take for a moment must not stand beside the arm's own, whose peak is told.
    first_weights = our_first_weights(base, settings)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(r=settings.rank, lora_alpha=int(settings.alpha), target_modules="all-linear"),
    )
    set_peft_model_state_dict(model, first_weights)

    class Recorded(DPOTrainer):
        """Takes tokens as they are, and remembers each step's loss before it is rounded for the log."""

        last_loss = float("nan")

        def _prepare_dataset(self, dataset: Any, *_: object) -> Any:
            return dataset

        def compute_loss(self, *arguments: Any, **options: Any) -> Any:
            loss = super().compute_loss(*arguments, **options)  # type: ignore[no-untyped-call]
            self.last_loss = loss.item()
            return loss

    trainer = Recorded(
        model=model,
        args=DPOConfig(
            output_dir=str(folder),
            max_steps=steps,
            beta=settings.dpo_beta,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="constant",
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            max_length=None,
            bf16=False,
            gradient_checkpointing=False,
            train_sampling_strategy="sequential",
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    lengths = [sum(len(row.token_ids) for row in pair.rows) for pair in ordered]

    class Reporter(TrainerCallback):
        """Reports each optimizer step."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            begin = (state.global_step - 1) * settings.batch_size
            report.step(trainer.last_loss, sum(lengths[begin : begin + settings.batch_size]))

    trainer.add_callback(Reporter())
    trainer.train()


if __name__ == "__main__":
    main()
