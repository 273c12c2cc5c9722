"""What a training run says, one JSON object a line.

Standard library only: the service reads with this module what the trainer wrote with it. Lines carry a
`kind` and the fields of one of the dataclasses below; times are seconds since the epoch.
"""

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

MAX_LINE_BYTES = 65_536
"""Longer lines are a fault of the writer, and are refused."""


class FailureReason(StrEnum):
    """Why a run ended without an adapter, as far as the trainer can tell."""

    NAN_LOSS = "NAN_LOSS"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    DATA_ERROR = "DATA_ERROR"
    BASE_MODEL_ERROR = "BASE_MODEL_ERROR"
    DISK_FULL = "DISK_FULL"
    INTERNAL = "INTERNAL"


class Verdict(StrEnum):
    """How well a run fits, as `trainer.verdict` judges it."""

    TOO_LITTLE_KNOWN = "TOO_LITTLE_KNOWN"
    UNDERFITTING = "UNDERFITTING"
    GOOD_FIT = "GOOD_FIT"
    OVERFITTING = "OVERFITTING"
    DIVERGED = "DIVERGED"


class Stage(StrEnum):
    """Parts of a run that may take minutes with a large model."""

    LOADING_BASE_MODEL = "LOADING_BASE_MODEL"
    LOADING_START_VERSION = "LOADING_START_VERSION"
    MEASURING_START = "MEASURING_START"
    """What training begins with is measured: to compare with, or as the reference of preferences."""
    LOADING_CHECKPOINT = "LOADING_CHECKPOINT"
    SAVING_CHECKPOINT = "SAVING_CHECKPOINT"
    """Or the state of the best step."""
    MEASURING_CANARY = "MEASURING_CANARY"
    WRITING = "WRITING"
    """Of what is published."""
    SEALING = "SEALING"
    """What was written is hashed and forced to disk."""


@dataclass(frozen=True, kw_only=True)
class Loading:
    """The process began; data and model are being loaded."""

    kind: ClassVar[str] = "loading"
    time: float
    pid: int


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """Training goes on from a checkpoint."""

    kind: ClassVar[str] = "resumed"
    time: float
    step: int


@dataclass(frozen=True, kw_only=True)
class FirstForward:
    """The first forward pass begins."""

    kind: ClassVar[str] = "first_forward"
    time: float


@dataclass(frozen=True, kw_only=True)
class FirstStep:
    """The first optimizer step is done."""

    kind: ClassVar[str] = "first_step"
    time: float
    step: int


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """Nothing else was said for a while; the run is alive."""

    kind: ClassVar[str] = "heartbeat"
    time: float


@dataclass(frozen=True, kw_only=True)
class Working:
    """A stage takes longer than a heartbeat; said once in it, and heartbeats follow."""

    kind: ClassVar[str] = "working"
    time: float
    stage: Stage


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Figures of a logging step. Units stand at `Metrics` in the proto."""

    kind: ClassVar[str] = "metrics"
    time: float
    step: int
    total_steps: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_second: float
    peak_memory_bytes: int
    eta_seconds: float
    epoch: float
    tokens: int
    reward_margin: float | None = None
    reward_accuracy: float | None = None
    """Of preferences alone."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures of an evaluation on the rows set aside."""

    kind: ClassVar[str] = "evaluation"
    time: float
    step: int
    eval_loss: float
    rows: int
    task_score: float | None = None
    """The task's own figure on generated answers, 0 to 1; None where the evaluation was not scored."""
    best_step: int = 0
    """The step with the best evaluation so far; 0 in what earlier releases recorded."""
    leaked_rows: int = 0
    """Rows of them whose prompt is trained on, too; 0 also in what earlier releases recorded."""
    reward_margin: float | None = None
    reward_accuracy: float | None = None
    """Of preferences alone."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A verdict: always one at the end, and one while training goes on whenever an alarm begins or ends."""

    kind: ClassVar[str] = "fit"
    time: float
    verdict: Verdict
    step: int
    """Optimizer steps done."""
    since_step: int | None
    """Where it began; only with OVERFITTING and DIVERGED. 0: with the version that the run goes on from."""
    best_step: int
    """The best step so far, at the end the one that is published; 0 before the first evaluation."""
    start_loss: float | None
    """Mean training loss of the first steps."""
    train_loss: float | None
    """Mean training loss since the evaluation before the latest."""
    eval_loss: float | None
    """Of the latest evaluation."""
    best_eval_loss: float | None
    """The lowest so far."""
    stopped_early: bool
    """Whether patience ended the run before its last step."""
    sentence: str
    """For a person, with the numbers."""
    version_eval_loss: float | None = None
    """Before the first step, of the version that a supervised run goes on from; else None."""
    base_eval_loss: float | None = None
    """Of the base on the same rows; likewise."""


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved:
    """A whole checkpoint was written."""

    kind: ClassVar[str] = "checkpoint_saved"
    time: float
    step: int


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Training is over; the adapter is being written and its canary measured."""

    kind: ClassVar[str] = "saving"
    time: float
    step: int
    best_step: int = 0
    """Whose weights are written; 0 in what earlier releases recorded, which wrote those of the last step."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """The run ended well: the adapter is at `artifacts_path/digest`, whole. Always the last line."""

    kind: ClassVar[str] = "published"
    time: float
    step: int
    digest: str
    """SHA-256 of MANIFEST.json, lower-case hexadecimal; also the directory's name."""
    size_bytes: int
    rank: int
    best_step: int = 0
    """As in Saving."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The run ended badly. Always the last line."""

    kind: ClassVar[str] = "failed"
    time: float
    reason: FailureReason
    message: str
    """One sentence for a person; never a stack trace."""


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """The run ended because it was asked to. Always the last line."""

    kind: ClassVar[str] = "cancelled"
    time: float


@dataclass(frozen=True, kw_only=True)
class Paused:
    """The run ended because it was asked to pause; a later attempt goes on. Always the last line."""

    kind: ClassVar[str] = "paused"
    time: float
    step: int
    """Optimizer steps done, all of them in a checkpoint."""


TrainerEvent = (
    Loading
    | Resumed
    | FirstForward
    | FirstStep
    | Heartbeat
    | Working
    | Metrics
    | Evaluation
    | Fit
    | CheckpointSaved
    | Saving
    | Published
    | Failed
    | Cancelled
    | Paused
)

_KINDS: dict[str, type[TrainerEvent]] = {
    event.kind: event
    for event in (
        Loading,
        Resumed,
        FirstForward,
        FirstStep,
        Heartbeat,
        Working,
        Metrics,
        Evaluation,
        Fit,
        CheckpointSaved,
        Saving,
        Published,
        Failed,
        Cancelled,
        Paused,
    )
}


def encode(event: TrainerEvent) -> bytes:
    """One line, newline included."""
    return json.dumps({"kind": event.kind, **dataclasses.asdict(event)}).encode() + b"\n"


def decode(line: bytes) -> TrainerEvent:
    """The event of one line. Raises ValueError on anything that `encode` does not write."""
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"event line of {len(line)} bytes, at most {MAX_LINE_BYTES} are accepted")
    fields = json.loads(line)
    if not isinstance(fields, dict) or fields.get("kind") not in _KINDS:
        raise ValueError(f"not an event of a training run: {line[:200]!r}")
    kind = _KINDS[fields.pop("kind")]
    if kind is Failed:
        fields["reason"] = FailureReason(fields["reason"])
    if kind is Fit:
        fields["verdict"] = Verdict(fields["verdict"])
    if kind is Working:
        fields["stage"] = Stage(fields["stage"])
    try:
        return kind(**fields)
    except TypeError as error:
        raise ValueError(f"event {kind.kind!r}: {error}") from error
