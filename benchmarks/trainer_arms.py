"""The arms of the trainer's benchmark, each to be run in a process of its own.

    python -m benchmarks.trainer_arms ARM BASE_MODEL_DIR --steps N --rows N

trains an adapter of rank 16 on every linear layer of SmolLM2 with the triage rows, in the same order in every
arm, and writes one JSON line for each optimizer step: its loss, and after it tokens (padding not counted),
wall-clock seconds and seconds of processor time. It does not compare anything.
"""

import argparse
import contextlib
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, set_peft_model_state_dict
from torch import Tensor
from transformers import AutoModelForCausalLM, TrainerCallback

from trainer import events
from trainer.channel import Channel
from trainer.config import BaseModel, Hyperparameters, JobFile, Objective, Schedule, Technique
from trainer.footprint import peak_resident_bytes
from trainer.model import load_base
from trainer.rendering import Renderer
from trainer.rows import Row, StepOrder, load_rows
from trainer.run import run
from trainer.steps import Trainee

TRAIN_PATH = Path(__file__).resolve().parent.parent / "examples" / "triage" / "train.jsonl"
LEARNING_RATE = 2e-4


def main() -> None:
    """Run one arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "arm", choices=("ours", "ours_fp32", "trl", "trl_packed", "trl_packed_fp32", "trl_fp32")
    )
    parser.add_argument("base", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rows", type=int, required=True, help="rows of an optimizer step")
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
        if arguments.arm.startswith("ours"):
            fp32 = arguments.arm == "ours_fp32"
            trained_by_us(arguments.base, settings, Path(folder), report, fp32=fp32)
        else:
            train_with_trl(arguments.arm, arguments.base, settings, Path(folder), report)


class Report:
    """Writes the line of each step to what was standard output when it was made."""

    def __init__(self) -> None:
        self._out = sys.stdout
        self._tokens = 0

    def step(self, loss: float, tokens: int) -> None:
        """One optimizer step is over; `tokens` are its own."""
        self._tokens += tokens
        line = {
            "loss": loss,
            "tokens": self._tokens,
            "wall": time.time(),
            "processor": time.process_time(),
            "peak_bytes": peak_resident_bytes(),
        }
        print(json.dumps(line), file=self._out, flush=True)


def trained_by_us(
    base: Path,
    settings: Hyperparameters,
    folder: Path,
    report: Report,
    *,
    fp32: bool = True,
    dataset: Path = TRAIN_PATH,
    objective: Objective = Objective.SUPERVISED,
) -> None:
    """The loop as a job runs it, publication included."""
    seen = 0

    def write(line: bytes) -> None:
        nonlocal seen
        event = events.decode(line)
        if isinstance(event, events.Metrics):
            report.step(event.loss, event.tokens - seen)
            seen = event.tokens
        if isinstance(event, events.Failed):
            sys.exit(event.message)

    job = JobFile(
        job_id="benchmark",
        attempt=1,
        adapter_id="benchmark",
        base_model=BaseModel(name=base.name, path=base, revision="benchmark"),
        dataset_path=dataset,
        dataset_sha256=hashlib.sha256(dataset.read_bytes()).hexdigest(),
        technique=Technique.LORA,
        objective=objective,
        hyperparameters=settings,
        work_path=folder / "work",
        artifacts_path=folder / "artifacts",
    )
    job.work_path.mkdir()
    job.artifacts_path.mkdir()
    run(job, Channel(write), dtype=torch.float32 if fp32 else None)


def train_with_trl(arm: str, base: Path, settings: Hyperparameters, folder: Path, report: Report) -> None:
    """SFTTrainer on the same rows from our first weights: by its defaults, packed, or in 32 bits."""
    from datasets import Dataset, concatenate_datasets  # noqa: PLC0415  (our arms must not pay for either)
    from trl import SFTConfig, SFTTrainer, pack_dataset  # type: ignore[attr-defined]  # noqa: PLC0415

    # First, while nothing else is loaded: the base that they take for a moment must not raise the arm's peak.
    first_weights = our_first_weights(base, settings)
    rows = load_rows(TRAIN_PATH, Renderer.from_directory(base), max_length=settings.max_sequence_length)
    order = StepOrder(rows=rows, batch_size=settings.batch_size, seed=settings.seed)
    steps = settings.max_steps or 0
    batches = [Dataset.from_list(list(map(_trl_row, order.rows_of_step(step)))) for step in range(steps)]
    options: dict[str, Any] = {"per_device_train_batch_size": settings.batch_size}
    lora = LoraConfig(r=settings.rank, lora_alpha=int(settings.alpha), target_modules="all-linear")
    # Given a path, TRL loads the weights by its own defaults: in 32 bits, computed with in 16.
    model: Any = str(base)
    if arm != "trl":
        dtype = torch.float32 if arm.endswith("fp32") else torch.bfloat16
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    if arm.startswith("trl_packed"):
        # As TRL packs, but step by step: over all rows it would put other ones together than our steps have.
        batches = [pack_dataset(batch, sum(map(len, batch["input_ids"]))) for batch in batches]
        options = {
            "per_device_train_batch_size": 1,
            "packing": True,
            "dataset_kwargs": {"skip_prepare_dataset": True},
            "gradient_checkpointing": False,
        }
    if arm.endswith("fp32"):
        options |= {"bf16": False, "gradient_checkpointing": False}

    class Recorded(SFTTrainer):
        """Remembers each step's loss before it is rounded for the log."""

        last_loss = float("nan")

        def compute_loss(self, *arguments: Any, **options: Any) -> Any:
            result = super().compute_loss(*arguments, **options)  # type: ignore[no-untyped-call]
            loss: Tensor = result[0] if isinstance(result, tuple) else result
            self.last_loss = loss.item()
            return result

    trainer = Recorded(
        model=model,
        args=SFTConfig(
            output_dir=str(folder),
            max_steps=steps,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="constant",
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            train_sampling_strategy="sequential",
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **options,
        ),
        train_dataset=concatenate_datasets(batches),
        peft_config=lora,
    )
    set_peft_model_state_dict(trainer.model, first_weights)
    dataset: Any = trainer.train_dataset
    lengths = [len(token_ids) for token_ids in dataset["input_ids"]]
    rows_a_step = int(options["per_device_train_batch_size"])

    class Reporter(TrainerCallback):
        """Reports each optimizer step."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            begin = (state.global_step - 1) * rows_a_step
            report.step(trainer.last_loss, sum(lengths[begin : begin + rows_a_step]))

    trainer.add_callback(Reporter())
    trainer.train()


def _trl_row(row: Row) -> dict[str, list[int]]:
    labels = [token if trained else -100 for token, trained in zip(row.token_ids, row.trained, strict=True)]
    return {"input_ids": list(row.token_ids), "labels": labels}


def our_first_weights(base: Path, settings: Hyperparameters) -> dict[str, Tensor]:
    """What an adapter begins with here, by PEFT's names."""
    trainee = Trainee.of(load_base(base, torch.float32), settings, torch.device("cpu"))
    return {name: matrix.detach().clone() for name, matrix in trainee.matrices.items()}


if __name__ == "__main__":
    main()
