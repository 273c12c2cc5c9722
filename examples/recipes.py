"""One recipe for each of the five uses: which rows, which settings, and the figure that came of it.

The figures were measured through the whole stack on the CPU default; `python -m examples` measures them
again. They differ a little from one machine to another: kernels add up in another order, and a greedy answer
may take another turn. `TOLERANCE` says how much of that is accepted.
"""

from dataclasses import dataclass
from pathlib import Path

from hotlora.v1.tuning_service_pb2 import Hyperparameters
from trainer.config import Task

ROOT = Path(__file__).resolve().parent

TOLERANCE = 0.1
"""How far a figure may be from what the README says, up or down, for the base as for the adapter."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A dataset, how to train on it, and what is to be expected."""

    name: str
    """Of the directory below `examples`."""
    task: Task
    figure: str
    """What is compared, as a report names it."""
    base: float
    """What the base model reaches."""
    adapter: float
    """What the adapter reaches."""
    epochs: int
    held_out_file: str = "held_out.jsonl"
    rank: int = 16
    learning_rate: float = 6e-4
    batch_size: int = 4
    validation_fraction: float = 0.0
    """0: every row trains, for the held-out ones are a file of their own."""

    @property
    def directory(self) -> Path:
        """Where its files are."""
        return ROOT / self.name

    @property
    def train_path(self) -> Path:
        """Rows to train on."""
        return self.directory / "train.jsonl"

    @property
    def held_out_path(self) -> Path:
        """Rows to compare base and adapter on."""
        return self.directory / self.held_out_file

    @property
    def adapter_id(self) -> str:
        """What its adapter is called."""
        return self.name.replace("_", "-")

    @property
    def hyperparameters(self) -> Hyperparameters:
        """Settings of its training."""
        return Hyperparameters(
            rank=self.rank,
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            batch_size=self.batch_size,
            dropout=0.0,
            validation_fraction=self.validation_fraction,
        )

    @property
    def command(self) -> str:
        """The same as a command, as the README shows it."""
        return (
            f"hotlora train examples/{self.name}/train.jsonl --adapter {self.adapter_id} \\\n"
            f"  --evaluate-on examples/{self.name}/{self.held_out_file} \\\n"
            f"  --epochs {self.epochs} --learning-rate {self.learning_rate:g} --rank {self.rank} "
            f"--batch-size {self.batch_size} \\\n"
            f"  --dropout 0 --validation-fraction {self.validation_fraction:g}"
        )


RECIPES = (
    Recipe(name="city_desk", task=Task.CLASSIFICATION, figure="accuracy", base=0.0, adapter=0.86, epochs=3),
    Recipe(name="village_news", task=Task.ENTITIES, figure="f1", base=0.0, adapter=0.59, epochs=1),
    Recipe(
        name="short_reads", task=Task.QUESTION_ANSWERING, figure="token_f1", base=0.18, adapter=0.73, epochs=1
    ),
    Recipe(name="shop_window", task=Task.GENERATION, figure="chrf", base=0.21, adapter=0.39, epochs=1),
    Recipe(
        name="triage",
        task=Task.INSTRUCTION,
        figure="field_accuracy",
        base=0.0,
        adapter=0.64,
        epochs=2,
        held_out_file="heldout.jsonl",
        validation_fraction=0.1,
    ),
)
