import datetime

from hotlora.buf.validate import validate_pb2 as _validate_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from hotlora.v1 import resources_pb2 as _resources_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Technique(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TECHNIQUE_UNSPECIFIED: _ClassVar[Technique]
    TECHNIQUE_LORA: _ClassVar[Technique]
    TECHNIQUE_QLORA: _ClassVar[Technique]
    TECHNIQUE_PROMPT_TUNING: _ClassVar[Technique]
    TECHNIQUE_FULL: _ClassVar[Technique]

class Objective(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OBJECTIVE_UNSPECIFIED: _ClassVar[Objective]
    OBJECTIVE_SUPERVISED: _ClassVar[Objective]
    OBJECTIVE_PREFERENCE: _ClassVar[Objective]

class Metric(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_UNSPECIFIED: _ClassVar[Metric]
    METRIC_EVAL_LOSS: _ClassVar[Metric]
    METRIC_TASK_SCORE: _ClassVar[Metric]

class Schedule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCHEDULE_UNSPECIFIED: _ClassVar[Schedule]
    SCHEDULE_COSINE: _ClassVar[Schedule]
    SCHEDULE_LINEAR: _ClassVar[Schedule]
    SCHEDULE_CONSTANT: _ClassVar[Schedule]
TECHNIQUE_UNSPECIFIED: Technique
TECHNIQUE_LORA: Technique
TECHNIQUE_QLORA: Technique
TECHNIQUE_PROMPT_TUNING: Technique
TECHNIQUE_FULL: Technique
OBJECTIVE_UNSPECIFIED: Objective
OBJECTIVE_SUPERVISED: Objective
OBJECTIVE_PREFERENCE: Objective
METRIC_UNSPECIFIED: Metric
METRIC_EVAL_LOSS: Metric
METRIC_TASK_SCORE: Metric
SCHEDULE_UNSPECIFIED: Schedule
SCHEDULE_COSINE: Schedule
SCHEDULE_LINEAR: Schedule
SCHEDULE_CONSTANT: Schedule

class Hyperparameters(_message.Message):
    __slots__ = ("rank", "alpha", "dropout", "target_modules", "learning_rate", "epochs", "max_steps", "batch_size", "max_sequence_length", "warmup_ratio", "schedule", "weight_decay", "max_grad_norm", "seed", "validation_fraction", "eval_every_steps", "checkpoint_every_steps", "log_every_steps", "use_rslora", "virtual_tokens", "dpo_beta", "initial_prompt", "early_stopping_patience", "early_stopping_metric")
    RANK_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    DROPOUT_FIELD_NUMBER: _ClassVar[int]
    TARGET_MODULES_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_SEQUENCE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    WARMUP_RATIO_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    MAX_GRAD_NORM_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FRACTION_FIELD_NUMBER: _ClassVar[int]
    EVAL_EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    LOG_EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    USE_RSLORA_FIELD_NUMBER: _ClassVar[int]
    VIRTUAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DPO_BETA_FIELD_NUMBER: _ClassVar[int]
    INITIAL_PROMPT_FIELD_NUMBER: _ClassVar[int]
    EARLY_STOPPING_PATIENCE_FIELD_NUMBER: _ClassVar[int]
    EARLY_STOPPING_METRIC_FIELD_NUMBER: _ClassVar[int]
    rank: int
    alpha: float
    dropout: float
    target_modules: _containers.RepeatedScalarFieldContainer[str]
    learning_rate: float
    epochs: int
    max_steps: int
    batch_size: int
    max_sequence_length: int
    warmup_ratio: float
    schedule: Schedule
    weight_decay: float
    max_grad_norm: float
    seed: int
    validation_fraction: float
    eval_every_steps: int
    checkpoint_every_steps: int
    log_every_steps: int
    use_rslora: bool
    virtual_tokens: int
    dpo_beta: float
    initial_prompt: str
    early_stopping_patience: int
    early_stopping_metric: Metric
    def __init__(self, rank: _Optional[int] = ..., alpha: _Optional[float] = ..., dropout: _Optional[float] = ..., target_modules: _Optional[_Iterable[str]] = ..., learning_rate: _Optional[float] = ..., epochs: _Optional[int] = ..., max_steps: _Optional[int] = ..., batch_size: _Optional[int] = ..., max_sequence_length: _Optional[int] = ..., warmup_ratio: _Optional[float] = ..., schedule: _Optional[_Union[Schedule, str]] = ..., weight_decay: _Optional[float] = ..., max_grad_norm: _Optional[float] = ..., seed: _Optional[int] = ..., validation_fraction: _Optional[float] = ..., eval_every_steps: _Optional[int] = ..., checkpoint_every_steps: _Optional[int] = ..., log_every_steps: _Optional[int] = ..., use_rslora: _Optional[bool] = ..., virtual_tokens: _Optional[int] = ..., dpo_beta: _Optional[float] = ..., initial_prompt: _Optional[str] = ..., early_stopping_patience: _Optional[int] = ..., early_stopping_metric: _Optional[_Union[Metric, str]] = ...) -> None: ...

class TuningJob(_message.Message):
    __slots__ = ("name", "state", "base_model", "dataset", "adapter", "technique", "hyperparameters", "failure", "latest_metrics", "adapter_version", "attempt", "last_sequence", "create_time", "start_time", "first_forward_time", "first_step_time", "end_time", "request_id", "fit", "best_step", "objective", "start_version", "evaluation_dataset", "evaluation", "warnings")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[TuningJob.State]
        STATE_QUEUED: _ClassVar[TuningJob.State]
        STATE_RUNNING: _ClassVar[TuningJob.State]
        STATE_CANCELLING: _ClassVar[TuningJob.State]
        STATE_SUCCEEDED: _ClassVar[TuningJob.State]
        STATE_FAILED: _ClassVar[TuningJob.State]
        STATE_CANCELLED: _ClassVar[TuningJob.State]
        STATE_PAUSED: _ClassVar[TuningJob.State]
        STATE_PAUSING: _ClassVar[TuningJob.State]
    STATE_UNSPECIFIED: TuningJob.State
    STATE_QUEUED: TuningJob.State
    STATE_RUNNING: TuningJob.State
    STATE_CANCELLING: TuningJob.State
    STATE_SUCCEEDED: TuningJob.State
    STATE_FAILED: TuningJob.State
    STATE_CANCELLED: TuningJob.State
    STATE_PAUSED: TuningJob.State
    STATE_PAUSING: TuningJob.State
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    TECHNIQUE_FIELD_NUMBER: _ClassVar[int]
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    LATEST_METRICS_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    FIRST_FORWARD_TIME_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FIT_FIELD_NUMBER: _ClassVar[int]
    BEST_STEP_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    START_VERSION_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_DATASET_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: TuningJob.State
    base_model: str
    dataset: str
    adapter: str
    technique: Technique
    hyperparameters: Hyperparameters
    failure: _resources_pb2.Failure
    latest_metrics: Metrics
    adapter_version: str
    attempt: int
    last_sequence: int
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    first_forward_time: _timestamp_pb2.Timestamp
    first_step_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    request_id: str
    fit: Fit
    best_step: int
    objective: Objective
    start_version: str
    evaluation_dataset: str
    evaluation: str
    warnings: _containers.RepeatedCompositeFieldContainer[SettingWarning]
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[TuningJob.State, str]] = ..., base_model: _Optional[str] = ..., dataset: _Optional[str] = ..., adapter: _Optional[str] = ..., technique: _Optional[_Union[Technique, str]] = ..., hyperparameters: _Optional[_Union[Hyperparameters, _Mapping]] = ..., failure: _Optional[_Union[_resources_pb2.Failure, _Mapping]] = ..., latest_metrics: _Optional[_Union[Metrics, _Mapping]] = ..., adapter_version: _Optional[str] = ..., attempt: _Optional[int] = ..., last_sequence: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., first_forward_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., first_step_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., request_id: _Optional[str] = ..., fit: _Optional[_Union[Fit, _Mapping]] = ..., best_step: _Optional[int] = ..., objective: _Optional[_Union[Objective, str]] = ..., start_version: _Optional[str] = ..., evaluation_dataset: _Optional[str] = ..., evaluation: _Optional[str] = ..., warnings: _Optional[_Iterable[_Union[SettingWarning, _Mapping]]] = ...) -> None: ...

class SettingWarning(_message.Message):
    __slots__ = ("field", "description")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    field: str
    description: str
    def __init__(self, field: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class CreateTuningJobRequest(_message.Message):
    __slots__ = ("request_id", "base_model", "dataset", "adapter_id", "technique", "hyperparameters", "objective", "start_version", "evaluation_dataset")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_ID_FIELD_NUMBER: _ClassVar[int]
    TECHNIQUE_FIELD_NUMBER: _ClassVar[int]
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    START_VERSION_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_DATASET_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    base_model: str
    dataset: str
    adapter_id: str
    technique: Technique
    hyperparameters: Hyperparameters
    objective: Objective
    start_version: str
    evaluation_dataset: str
    def __init__(self, request_id: _Optional[str] = ..., base_model: _Optional[str] = ..., dataset: _Optional[str] = ..., adapter_id: _Optional[str] = ..., technique: _Optional[_Union[Technique, str]] = ..., hyperparameters: _Optional[_Union[Hyperparameters, _Mapping]] = ..., objective: _Optional[_Union[Objective, str]] = ..., start_version: _Optional[str] = ..., evaluation_dataset: _Optional[str] = ...) -> None: ...

class GetTuningJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListTuningJobsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "states", "adapter")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    states: _containers.RepeatedScalarFieldContainer[TuningJob.State]
    adapter: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., states: _Optional[_Iterable[_Union[TuningJob.State, str]]] = ..., adapter: _Optional[str] = ...) -> None: ...

class ListTuningJobsResponse(_message.Message):
    __slots__ = ("tuning_jobs", "next_page_token")
    TUNING_JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tuning_jobs: _containers.RepeatedCompositeFieldContainer[TuningJob]
    next_page_token: str
    def __init__(self, tuning_jobs: _Optional[_Iterable[_Union[TuningJob, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CancelTuningJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class PauseTuningJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ResumeTuningJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class WatchTuningJobRequest(_message.Message):
    __slots__ = ("name", "after_sequence")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    after_sequence: int
    def __init__(self, name: _Optional[str] = ..., after_sequence: _Optional[int] = ...) -> None: ...

class WatchTuningJobResponse(_message.Message):
    __slots__ = ("tuning_job", "event")
    TUNING_JOB_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    tuning_job: TuningJob
    event: TuningEvent
    def __init__(self, tuning_job: _Optional[_Union[TuningJob, _Mapping]] = ..., event: _Optional[_Union[TuningEvent, _Mapping]] = ...) -> None: ...

class TuningEvent(_message.Message):
    __slots__ = ("sequence", "time", "state_change", "metrics", "evaluation", "checkpoint_saved", "milestone", "fit")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_CHANGE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_SAVED_FIELD_NUMBER: _ClassVar[int]
    MILESTONE_FIELD_NUMBER: _ClassVar[int]
    FIT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    state_change: StateChange
    metrics: Metrics
    evaluation: Evaluation
    checkpoint_saved: CheckpointSaved
    milestone: Milestone
    fit: Fit
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state_change: _Optional[_Union[StateChange, _Mapping]] = ..., metrics: _Optional[_Union[Metrics, _Mapping]] = ..., evaluation: _Optional[_Union[Evaluation, _Mapping]] = ..., checkpoint_saved: _Optional[_Union[CheckpointSaved, _Mapping]] = ..., milestone: _Optional[_Union[Milestone, _Mapping]] = ..., fit: _Optional[_Union[Fit, _Mapping]] = ...) -> None: ...

class StateChange(_message.Message):
    __slots__ = ("state", "attempt", "failure")
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    state: TuningJob.State
    attempt: int
    failure: _resources_pb2.Failure
    def __init__(self, state: _Optional[_Union[TuningJob.State, str]] = ..., attempt: _Optional[int] = ..., failure: _Optional[_Union[_resources_pb2.Failure, _Mapping]] = ...) -> None: ...

class Metrics(_message.Message):
    __slots__ = ("step", "total_steps", "loss", "learning_rate", "grad_norm", "tokens_per_second", "peak_memory_bytes", "eta_seconds", "epoch", "tokens", "reward_margin", "reward_accuracy")
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    GRAD_NORM_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    ETA_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    REWARD_MARGIN_FIELD_NUMBER: _ClassVar[int]
    REWARD_ACCURACY_FIELD_NUMBER: _ClassVar[int]
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
    reward_margin: float
    reward_accuracy: float
    def __init__(self, step: _Optional[int] = ..., total_steps: _Optional[int] = ..., loss: _Optional[float] = ..., learning_rate: _Optional[float] = ..., grad_norm: _Optional[float] = ..., tokens_per_second: _Optional[float] = ..., peak_memory_bytes: _Optional[int] = ..., eta_seconds: _Optional[float] = ..., epoch: _Optional[float] = ..., tokens: _Optional[int] = ..., reward_margin: _Optional[float] = ..., reward_accuracy: _Optional[float] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("step", "eval_loss", "rows", "task_score", "best_step", "reward_margin", "reward_accuracy", "leaked_rows")
    STEP_FIELD_NUMBER: _ClassVar[int]
    EVAL_LOSS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    TASK_SCORE_FIELD_NUMBER: _ClassVar[int]
    BEST_STEP_FIELD_NUMBER: _ClassVar[int]
    REWARD_MARGIN_FIELD_NUMBER: _ClassVar[int]
    REWARD_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    LEAKED_ROWS_FIELD_NUMBER: _ClassVar[int]
    step: int
    eval_loss: float
    rows: int
    task_score: float
    best_step: int
    reward_margin: float
    reward_accuracy: float
    leaked_rows: int
    def __init__(self, step: _Optional[int] = ..., eval_loss: _Optional[float] = ..., rows: _Optional[int] = ..., task_score: _Optional[float] = ..., best_step: _Optional[int] = ..., reward_margin: _Optional[float] = ..., reward_accuracy: _Optional[float] = ..., leaked_rows: _Optional[int] = ...) -> None: ...

class Fit(_message.Message):
    __slots__ = ("verdict", "step", "since_step", "best_step", "start_loss", "train_loss", "eval_loss", "best_eval_loss", "stopped_early", "sentence", "version_eval_loss", "base_eval_loss")
    class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        VERDICT_UNSPECIFIED: _ClassVar[Fit.Verdict]
        VERDICT_TOO_LITTLE_KNOWN: _ClassVar[Fit.Verdict]
        VERDICT_UNDERFITTING: _ClassVar[Fit.Verdict]
        VERDICT_GOOD_FIT: _ClassVar[Fit.Verdict]
        VERDICT_OVERFITTING: _ClassVar[Fit.Verdict]
        VERDICT_DIVERGED: _ClassVar[Fit.Verdict]
    VERDICT_UNSPECIFIED: Fit.Verdict
    VERDICT_TOO_LITTLE_KNOWN: Fit.Verdict
    VERDICT_UNDERFITTING: Fit.Verdict
    VERDICT_GOOD_FIT: Fit.Verdict
    VERDICT_OVERFITTING: Fit.Verdict
    VERDICT_DIVERGED: Fit.Verdict
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SINCE_STEP_FIELD_NUMBER: _ClassVar[int]
    BEST_STEP_FIELD_NUMBER: _ClassVar[int]
    START_LOSS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_LOSS_FIELD_NUMBER: _ClassVar[int]
    EVAL_LOSS_FIELD_NUMBER: _ClassVar[int]
    BEST_EVAL_LOSS_FIELD_NUMBER: _ClassVar[int]
    STOPPED_EARLY_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_EVAL_LOSS_FIELD_NUMBER: _ClassVar[int]
    BASE_EVAL_LOSS_FIELD_NUMBER: _ClassVar[int]
    verdict: Fit.Verdict
    step: int
    since_step: int
    best_step: int
    start_loss: float
    train_loss: float
    eval_loss: float
    best_eval_loss: float
    stopped_early: bool
    sentence: str
    version_eval_loss: float
    base_eval_loss: float
    def __init__(self, verdict: _Optional[_Union[Fit.Verdict, str]] = ..., step: _Optional[int] = ..., since_step: _Optional[int] = ..., best_step: _Optional[int] = ..., start_loss: _Optional[float] = ..., train_loss: _Optional[float] = ..., eval_loss: _Optional[float] = ..., best_eval_loss: _Optional[float] = ..., stopped_early: _Optional[bool] = ..., sentence: _Optional[str] = ..., version_eval_loss: _Optional[float] = ..., base_eval_loss: _Optional[float] = ...) -> None: ...

class CheckpointSaved(_message.Message):
    __slots__ = ("step",)
    STEP_FIELD_NUMBER: _ClassVar[int]
    step: int
    def __init__(self, step: _Optional[int] = ...) -> None: ...

class Milestone(_message.Message):
    __slots__ = ("kind", "step", "best_step")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Milestone.Kind]
        KIND_LOADING: _ClassVar[Milestone.Kind]
        KIND_FIRST_FORWARD: _ClassVar[Milestone.Kind]
        KIND_FIRST_STEP: _ClassVar[Milestone.Kind]
        KIND_RESUMED: _ClassVar[Milestone.Kind]
        KIND_SAVING: _ClassVar[Milestone.Kind]
        KIND_PUBLISHED: _ClassVar[Milestone.Kind]
        KIND_LOADING_BASE_MODEL: _ClassVar[Milestone.Kind]
        KIND_LOADING_START_VERSION: _ClassVar[Milestone.Kind]
        KIND_MEASURING_START: _ClassVar[Milestone.Kind]
        KIND_LOADING_CHECKPOINT: _ClassVar[Milestone.Kind]
        KIND_SAVING_CHECKPOINT: _ClassVar[Milestone.Kind]
        KIND_MEASURING_CANARY: _ClassVar[Milestone.Kind]
        KIND_WRITING: _ClassVar[Milestone.Kind]
        KIND_SEALING: _ClassVar[Milestone.Kind]
    KIND_UNSPECIFIED: Milestone.Kind
    KIND_LOADING: Milestone.Kind
    KIND_FIRST_FORWARD: Milestone.Kind
    KIND_FIRST_STEP: Milestone.Kind
    KIND_RESUMED: Milestone.Kind
    KIND_SAVING: Milestone.Kind
    KIND_PUBLISHED: Milestone.Kind
    KIND_LOADING_BASE_MODEL: Milestone.Kind
    KIND_LOADING_START_VERSION: Milestone.Kind
    KIND_MEASURING_START: Milestone.Kind
    KIND_LOADING_CHECKPOINT: Milestone.Kind
    KIND_SAVING_CHECKPOINT: Milestone.Kind
    KIND_MEASURING_CANARY: Milestone.Kind
    KIND_WRITING: Milestone.Kind
    KIND_SEALING: Milestone.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    BEST_STEP_FIELD_NUMBER: _ClassVar[int]
    kind: Milestone.Kind
    step: int
    best_step: int
    def __init__(self, kind: _Optional[_Union[Milestone.Kind, str]] = ..., step: _Optional[int] = ..., best_step: _Optional[int] = ...) -> None: ...
