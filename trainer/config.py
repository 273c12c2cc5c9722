"""The job file: everything a training run is told, as frozen dataclasses and as JSON.

This module and `trainer.events` are the contract between the service and the trainer process. Both are
standard library only, so that the service can import them without torch. Ranges are checked by whoever
accepts a request; this module checks shape and type.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Technique(StrEnum):
    """How the base model is adapted."""

    LORA = "lora"
    QLORA = "qlora"
    PROMPT_TUNING = "prompt_tuning"
    FULL = "full"


class Objective(StrEnum):
    """What training makes smaller."""

    SUPERVISED = "supervised"
    """The cross-entropy of the tokens that should follow, in conversations or texts."""
    PREFERENCE = "preference"
    """The loss of direct preference optimisation, over pairs of answers."""


class Task(StrEnum):
    """What the rows of a dataset teach; decides how answers are scored."""

    CLASSIFICATION = "classification"
    ENTITIES = "entities"
    QUESTION_ANSWERING = "question_answering"
    GENERATION = "generation"
    INSTRUCTION = "instruction"


class Schedule(StrEnum):
    """What the learning rate does after the warm-up."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"


class Metric(StrEnum):
    """Which figure of an evaluation says what is better."""

    EVAL_LOSS = "eval_loss"
    TASK_SCORE = "task_score"


LEARNING_RATES: Mapping[Technique, float] = {
    Technique.LORA: 2e-4,
    Technique.QLORA: 2e-4,
    Technique.PROMPT_TUNING: 3e-3,
    Technique.FULL: 2e-5,
}
"""Peak rates where none is chosen: the middle of 1e-4..3e-4, 1e-3..1e-2 and 1e-5..5e-5."""

SETTINGS_OF: Mapping[str, frozenset[Technique]] = {
    **dict.fromkeys(
        ("rank", "alpha", "dropout", "target_modules", "use_rslora"),
        frozenset({Technique.LORA, Technique.QLORA}),
    ),
    **dict.fromkeys(("virtual_tokens", "initial_prompt"), frozenset({Technique.PROMPT_TUNING})),
}
"""Hyperparameters that only some techniques read, and which those are; all others are read by every one."""

PREFERENCE_RATE = 0.1
"""Of the technique's rate: preferences move a model that can already answer, and overshoot sooner."""
PREFERENCE_SETTINGS = frozenset({"dpo_beta"})
"""Hyperparameters that only the preference objective reads."""

ALL_LINEAR = "all-linear"
"""As the only target module: every linear layer of the decoder except the output head."""


def is_read(name: str, technique: Technique, objective: Objective) -> bool:
    """Whether a hyperparameter has an effect there."""
    if name in PREFERENCE_SETTINGS and objective is not Objective.PREFERENCE:
        return False
    return technique in SETTINGS_OF.get(name, Technique)


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Settings of a run, complete. Meaning and ranges stand in `protos/hotlora/v1/tuning_service.proto`."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    target_modules: tuple[str, ...] = ()
    """Names of linear modules; empty or ("all-linear",) means every linear layer of the decoder except the
    output head."""
    use_rslora: bool = False
    """The adapter's output is scaled by alpha / sqrt(rank) instead of alpha / rank."""
    virtual_tokens: int = 20
    initial_prompt: str = ""
    """Text whose embeddings the virtual tokens begin as; empty means drawn from the vocabulary."""
    dpo_beta: float = 0.1
    learning_rate: float = 2e-4
    epochs: int = 3
    max_steps: int | None = None
    """Optimizer steps after which training ends; None means that epochs decide."""
    batch_size: int = 8
    """Rows per optimizer step."""
    max_sequence_length: int = 2048
    warmup_ratio: float = 0.05
    schedule: Schedule = Schedule.COSINE
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    """0 means that gradients are not clipped."""
    seed: int = 42
    validation_fraction: float = 0.1
    """0 means that no rows are set aside."""
    eval_every_steps: int | None = None
    """None means four evaluations in a run."""
    checkpoint_every_steps: int | None = None
    """None means as often as evaluations."""
    log_every_steps: int = 1
    early_stopping_patience: int = 0
    """Evaluations in a row that may bring nothing better; after so many training ends. 0 means never."""
    early_stopping_metric: Metric = Metric.EVAL_LOSS
    """Says which step is the best one, whose weights are published, also where patience is 0."""

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Hyperparameters":
        """What `dataclasses.asdict` and JSON made of settings. Raises KeyError, TypeError, ValueError."""
        return cls(
            **{
                **fields,
                "target_modules": tuple(fields["target_modules"]),
                "schedule": Schedule(fields["schedule"]),
                "early_stopping_metric": Metric(fields["early_stopping_metric"]),
            }
        )


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """Local weights that a run starts from."""

    name: str
    """What people call it, for example `smollm2-135m-instruct`."""
    path: Path
    """Directory with config.json, safetensors weights and the tokenizer."""
    revision: str
    """Commit of the hub, or `sha256:` and a digest of local files; changes whenever the weights do."""


@dataclass(frozen=True, kw_only=True)
class StartVersion:
    """A published version that a run continues."""

    name: str
    """What people call it, for example `support@1`."""
    path: Path
    """Its directory, named by the digest of its manifest."""


@dataclass(frozen=True, kw_only=True)
class JobFile:
    """One training run."""

    job_id: str
    attempt: int
    """1 for the first try; a later try resumes from the newest whole checkpoint below `work_path`."""
    adapter_id: str
    base_model: BaseModel
    dataset_path: Path
    """JSON Lines that `trainer.records` accepts."""
    dataset_sha256: str
    technique: Technique
    hyperparameters: Hyperparameters
    work_path: Path
    """Directory of this job alone: checkpoints and half-written files. Whoever gave it removes it."""
    artifacts_path: Path
    """Directory below which the adapter is published, named by its digest; same file system as work_path."""
    objective: Objective = Objective.SUPERVISED
    start_version: StartVersion | None = None
    """Whose weights training begins with; None: fresh ones."""
    task: Task | None = None
    """What the dataset teaches; decides how generated answers are scored. None: nobody said."""

    def write(self, path: Path) -> None:
        """Write the job as JSON to `path`."""
        path.write_text(json.dumps(dataclasses.asdict(self), default=str, indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "JobFile":
        """Read what `write` wrote. Raises ValueError naming the field that is wrong."""
        fields: dict[str, Any] = json.loads(path.read_text())
        try:
            hyperparameters = Hyperparameters.from_json(fields.pop("hyperparameters"))
            base_model = dict(fields.pop("base_model"))
            base_model["path"] = Path(base_model["path"])
            for name in ("dataset_path", "work_path", "artifacts_path"):
                fields[name] = Path(fields[name])
            fields["technique"] = Technique(fields["technique"])
            fields["objective"] = Objective(fields["objective"])
            fields["task"] = None if fields["task"] is None else Task(fields["task"])
            start = fields["start_version"]
            if start is not None:
                fields["start_version"] = StartVersion(name=start["name"], path=Path(start["path"]))
            return cls(
                hyperparameters=hyperparameters,
                base_model=BaseModel(**base_model),
                **fields,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a job file: {error}") from error
