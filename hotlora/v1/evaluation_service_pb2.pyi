import datetime

from hotlora.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from hotlora.v1 import resources_pb2 as _resources_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AdapterEvaluation(_message.Message):
    __slots__ = ("name", "state", "adapter_version", "tuning_job", "dataset", "from_validation_split", "failure", "done_answers", "total_answers", "report", "create_time", "start_time", "end_time")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[AdapterEvaluation.State]
        STATE_QUEUED: _ClassVar[AdapterEvaluation.State]
        STATE_RUNNING: _ClassVar[AdapterEvaluation.State]
        STATE_SUCCEEDED: _ClassVar[AdapterEvaluation.State]
        STATE_FAILED: _ClassVar[AdapterEvaluation.State]
    STATE_UNSPECIFIED: AdapterEvaluation.State
    STATE_QUEUED: AdapterEvaluation.State
    STATE_RUNNING: AdapterEvaluation.State
    STATE_SUCCEEDED: AdapterEvaluation.State
    STATE_FAILED: AdapterEvaluation.State
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    TUNING_JOB_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    FROM_VALIDATION_SPLIT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    DONE_ANSWERS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_ANSWERS_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: AdapterEvaluation.State
    adapter_version: str
    tuning_job: str
    dataset: str
    from_validation_split: bool
    failure: _resources_pb2.Failure
    done_answers: int
    total_answers: int
    report: EvaluationReport
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[AdapterEvaluation.State, str]] = ..., adapter_version: _Optional[str] = ..., tuning_job: _Optional[str] = ..., dataset: _Optional[str] = ..., from_validation_split: _Optional[bool] = ..., failure: _Optional[_Union[_resources_pb2.Failure, _Mapping]] = ..., done_answers: _Optional[int] = ..., total_answers: _Optional[int] = ..., report: _Optional[_Union[EvaluationReport, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class EvaluationReport(_message.Message):
    __slots__ = ("summary", "task", "rows", "held_out_rows", "seen_rows", "refused_rows", "figures", "confusion_tables", "wins", "losses", "ties", "regressions", "examples", "general_skill")
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_ROWS_FIELD_NUMBER: _ClassVar[int]
    SEEN_ROWS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_ROWS_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_TABLES_FIELD_NUMBER: _ClassVar[int]
    WINS_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    TIES_FIELD_NUMBER: _ClassVar[int]
    REGRESSIONS_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    GENERAL_SKILL_FIELD_NUMBER: _ClassVar[int]
    summary: str
    task: _resources_pb2.Task
    rows: int
    held_out_rows: int
    seen_rows: int
    refused_rows: int
    figures: _containers.RepeatedCompositeFieldContainer[ReportFigure]
    confusion_tables: _containers.RepeatedCompositeFieldContainer[ConfusionTable]
    wins: int
    losses: int
    ties: int
    regressions: int
    examples: _containers.RepeatedCompositeFieldContainer[ReportExample]
    general_skill: GeneralSkill
    def __init__(self, summary: _Optional[str] = ..., task: _Optional[_Union[_resources_pb2.Task, str]] = ..., rows: _Optional[int] = ..., held_out_rows: _Optional[int] = ..., seen_rows: _Optional[int] = ..., refused_rows: _Optional[int] = ..., figures: _Optional[_Iterable[_Union[ReportFigure, _Mapping]]] = ..., confusion_tables: _Optional[_Iterable[_Union[ConfusionTable, _Mapping]]] = ..., wins: _Optional[int] = ..., losses: _Optional[int] = ..., ties: _Optional[int] = ..., regressions: _Optional[int] = ..., examples: _Optional[_Iterable[_Union[ReportExample, _Mapping]]] = ..., general_skill: _Optional[_Union[GeneralSkill, _Mapping]] = ...) -> None: ...

class ReportFigure(_message.Message):
    __slots__ = ("name", "base", "adapter", "higher_is_better", "constrained")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    HIGHER_IS_BETTER_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINED_FIELD_NUMBER: _ClassVar[int]
    name: str
    base: float
    adapter: float
    higher_is_better: bool
    constrained: bool
    def __init__(self, name: _Optional[str] = ..., base: _Optional[float] = ..., adapter: _Optional[float] = ..., higher_is_better: _Optional[bool] = ..., constrained: _Optional[bool] = ...) -> None: ...

class ConfusionTable(_message.Message):
    __slots__ = ("adapter", "constrained", "labels", "rows")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINED_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    adapter: bool
    constrained: bool
    labels: _containers.RepeatedScalarFieldContainer[str]
    rows: _containers.RepeatedCompositeFieldContainer[ConfusionRow]
    def __init__(self, adapter: _Optional[bool] = ..., constrained: _Optional[bool] = ..., labels: _Optional[_Iterable[str]] = ..., rows: _Optional[_Iterable[_Union[ConfusionRow, _Mapping]]] = ...) -> None: ...

class ConfusionRow(_message.Message):
    __slots__ = ("counts",)
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, counts: _Optional[_Iterable[int]] = ...) -> None: ...

class ReportExample(_message.Message):
    __slots__ = ("kind", "line", "prompt", "expected", "base_answer", "adapter_answer", "base_credit", "adapter_credit")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[ReportExample.Kind]
        KIND_WIN: _ClassVar[ReportExample.Kind]
        KIND_LOSS: _ClassVar[ReportExample.Kind]
        KIND_REGRESSION: _ClassVar[ReportExample.Kind]
    KIND_UNSPECIFIED: ReportExample.Kind
    KIND_WIN: ReportExample.Kind
    KIND_LOSS: ReportExample.Kind
    KIND_REGRESSION: ReportExample.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    BASE_ANSWER_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_ANSWER_FIELD_NUMBER: _ClassVar[int]
    BASE_CREDIT_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_CREDIT_FIELD_NUMBER: _ClassVar[int]
    kind: ReportExample.Kind
    line: int
    prompt: str
    expected: str
    base_answer: str
    adapter_answer: str
    base_credit: float
    adapter_credit: float
    def __init__(self, kind: _Optional[_Union[ReportExample.Kind, str]] = ..., line: _Optional[int] = ..., prompt: _Optional[str] = ..., expected: _Optional[str] = ..., base_answer: _Optional[str] = ..., adapter_answer: _Optional[str] = ..., base_credit: _Optional[float] = ..., adapter_credit: _Optional[float] = ...) -> None: ...

class GeneralSkill(_message.Message):
    __slots__ = ("items", "base_right", "adapter_right", "forgotten")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    BASE_RIGHT_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_RIGHT_FIELD_NUMBER: _ClassVar[int]
    FORGOTTEN_FIELD_NUMBER: _ClassVar[int]
    items: int
    base_right: int
    adapter_right: int
    forgotten: int
    def __init__(self, items: _Optional[int] = ..., base_right: _Optional[int] = ..., adapter_right: _Optional[int] = ..., forgotten: _Optional[int] = ...) -> None: ...

class GetEvaluationRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListEvaluationsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "parent")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    parent: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., parent: _Optional[str] = ...) -> None: ...

class ListEvaluationsResponse(_message.Message):
    __slots__ = ("evaluations", "next_page_token")
    EVALUATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    evaluations: _containers.RepeatedCompositeFieldContainer[AdapterEvaluation]
    next_page_token: str
    def __init__(self, evaluations: _Optional[_Iterable[_Union[AdapterEvaluation, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CreateEvaluationRequest(_message.Message):
    __slots__ = ("request_id", "adapter_version", "dataset")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    adapter_version: str
    dataset: str
    def __init__(self, request_id: _Optional[str] = ..., adapter_version: _Optional[str] = ..., dataset: _Optional[str] = ...) -> None: ...

class WatchEvaluationRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...
