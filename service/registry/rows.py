"""What the registry gives out: frozen rows. Times are seconds since the epoch; None means "not yet".

Knows nothing of SQL and nothing of the wire.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Generic, TypeVar

from service.registry.states import EvaluationState, JobState, VersionState
from trainer import events
from trainer.config import Hyperparameters, Objective, Task, Technique
from trainer.inspection import Report
from trainer.records import Kind

Row = TypeVar("Row")

DEFAULT_ALIAS = "default"
"""What an adapter's plain name means, once there is such an alias."""


@dataclass(frozen=True, kw_only=True)
class Page(Generic[Row]):
    """Part of a list."""

    rows: tuple[Row, ...]
    next_cursor: str
    """Gets the next page with the same filters; empty on the last one."""


@dataclass(frozen=True, kw_only=True)
class DatasetRow:
    """An uploaded file."""

    id: str
    display_name: str
    size_bytes: int
    sha256: str
    rows: int
    tokens: int
    longest_row_tokens: int
    create_time: float
    kind: Kind
    task: Task | None
    """None where the uploader named none."""
    report: Report | None
    """None for datasets of earlier releases."""
    base_model: str
    """By whose template and tokenizer the rows were checked and counted; empty for datasets of earlier
    releases."""

    @property
    def objective(self) -> Objective:
        """The one that its rows are for."""
        return Objective.PREFERENCE if self.kind is Kind.PREFERENCES else Objective.SUPERVISED


@dataclass(frozen=True, kw_only=True)
class SettingWarning:
    """What a caller should know of a setting that is accepted all the same."""

    field: str
    """Path in the request."""
    description: str


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """A tuning job."""

    id: str
    request_id: str
    """Empty where the caller gave none."""
    request_digest: str
    base_model: str
    dataset_id: str
    adapter_id: str
    technique: Technique
    objective: Objective
    hyperparameters: Hyperparameters
    warnings: tuple[SettingWarning, ...]
    """Of its settings, from when it was created."""
    state: JobState
    attempt: int
    """How many times a trainer began it."""
    crashes: int
    """How many attempts in a row died or hung: the last one that kept a checkpoint, and those after it."""
    epoch: int
    """Raised by each claim and each requeue: whoever knows a smaller one is fenced off."""
    owner: str | None
    heartbeat_time: float | None
    failure_reason: str | None
    failure_message: str | None
    latest_metrics: events.Metrics | None
    fit: events.Fit | None
    best_step: int
    """0 before the first evaluation."""
    start_version: tuple[str, int] | None
    """Adapter and number whose weights it begins with; None: fresh ones."""
    version_number: int | None
    evaluation_dataset_id: str | None
    """What its version is evaluated on; None: the rows that its validation split sets aside."""
    evaluation_id: str | None
    """Of its version's first evaluation."""
    last_sequence: int
    create_time: float
    start_time: float | None
    first_forward_time: float | None
    first_step_time: float | None
    end_time: float | None


@dataclass(frozen=True, kw_only=True)
class StateChanged:
    """A job moved to another state."""

    kind: ClassVar[str] = "state_changed"
    time: float
    state: JobState
    attempt: int
    """0 before the first."""
    reason: str | None = None
    """Set when FAILED, and when QUEUED again after a crash."""
    message: str | None = None


ProgressEvent = (
    events.Loading
    | events.Resumed
    | events.FirstForward
    | events.FirstStep
    | events.Working
    | events.Metrics
    | events.Evaluation
    | events.Fit
    | events.CheckpointSaved
    | events.Saving
)
"""What a trainer says before its last line."""

EventBody = ProgressEvent | events.Published | StateChanged


@dataclass(frozen=True, kw_only=True)
class EventRow:
    """Something that happened to a job."""

    job_id: str
    sequence: int
    """1, 2, 3, ... within a job, no gaps."""
    time: float
    kind: str
    body: EventBody


@dataclass(frozen=True, kw_only=True)
class AdapterRow:
    """A named line of versions."""

    id: str
    base_model: str
    latest_version: int
    """0 when there is none yet."""
    active_version: int
    """Newest ACTIVE one; 0 when there is none."""
    create_time: float


@dataclass(frozen=True, kw_only=True)
class Verification:
    """How the served adapter compares with the trained one; meanings stand at `Verification` in the proto."""

    tokens: int
    adapter_difference: float
    effect: float
    trained_effect: float
    noise: float
    tolerance: float
    seconds: float
    time: float
    quantisation_difference: float | None = None
    """None where the base was not quantised in training, or that was not measured."""
    strength: float | None = None
    strength_error: float | None = None
    """Both None in proofs from before they were measured."""


@dataclass(frozen=True, kw_only=True)
class VersionRow:
    """One trained, immutable set of weights."""

    adapter_id: str
    base_model: str
    """Of its adapter."""
    number: int
    state: VersionState
    failure_reason: str | None
    failure_message: str | None
    job_id: str | None
    """None: it was imported."""
    technique: Technique
    rank: int
    digest: str
    """Name of its directory below `artifacts_dir`."""
    size_bytes: int
    verification: Verification | None
    create_time: float
    active_time: float | None
    """When it first became ACTIVE."""
    epoch: int
    """Raised by each change of state."""

    @property
    def model(self) -> str:
        """Its name in the engine, never reused."""
        return f"{self.adapter_id}@{self.number}"


@dataclass(frozen=True, kw_only=True)
class VersionChange:
    """A version moved to another state."""

    epoch: int
    time: float
    state: VersionState
    reason: str | None
    message: str | None


@dataclass(frozen=True, kw_only=True)
class Share:
    """A version's part of an alias's requests."""

    version: int
    percent: int


@dataclass(frozen=True, kw_only=True)
class AliasRow:
    """A name of an adapter that points at its versions."""

    adapter_id: str
    id: str
    revision: int
    """Counts its changes, from 1."""
    is_gated: bool
    shares: tuple[Share, ...]
    """By version; their percentages make 100."""
    create_time: float
    update_time: float

    @property
    def model(self) -> str:
        """The name that it is asked by."""
        return alias_model(self.adapter_id, self.id)

    @property
    def main_version(self) -> int:
        """The one with the most requests; of equals the newest."""
        return max(self.shares, key=lambda share: (share.percent, share.version)).version


def alias_model(adapter_id: str, alias_id: str) -> str:
    """The name that an alias is asked by."""
    return adapter_id if alias_id == DEFAULT_ALIAS else f"{adapter_id}@{alias_id}"


class AliasChangeKind(StrEnum):
    """What was done to an alias."""

    PROMOTED = "PROMOTED"
    SPLIT = "SPLIT"
    ROLLED_BACK = "ROLLED_BACK"
    DELETED = "DELETED"
    GATE_CHANGED = "GATE_CHANGED"


@dataclass(frozen=True, kw_only=True)
class AliasChange:
    """Something that was done to an alias."""

    revision: int
    time: float
    kind: AliasChangeKind
    author: str
    """As they called themselves."""
    before: tuple[Share, ...]
    """Empty where it was made."""
    after: tuple[Share, ...]
    """Empty where it was deleted."""
    is_forced: bool
    is_gated: bool | None
    """From then on; None where it was not recorded."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """A comparison of a version with its base."""

    id: str
    adapter_id: str
    number: int
    job_id: str | None
    """That made the version; None: it was imported."""
    dataset_id: str
    from_validation_split: bool
    state: EvaluationState
    epoch: int
    """Raised by each claim and each requeue: whoever knows a smaller one is fenced off."""
    owner: str | None
    heartbeat_time: float | None
    failure_reason: str | None
    failure_message: str | None
    done_answers: int
    total_answers: int
    report: str | None
    """JSON that `service.evaluation.report` wrote."""
    create_time: float
    start_time: float | None
    end_time: float | None

    @property
    def model(self) -> str:
        """The version's name in the engine."""
        return f"{self.adapter_id}@{self.number}"
