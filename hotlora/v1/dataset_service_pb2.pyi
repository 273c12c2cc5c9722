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

class Format(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FORMAT_UNSPECIFIED: _ClassVar[Format]
    FORMAT_CHAT: _ClassVar[Format]
    FORMAT_PROMPT_COMPLETION: _ClassVar[Format]
    FORMAT_ALPACA: _ClassVar[Format]
    FORMAT_SHAREGPT: _ClassVar[Format]
    FORMAT_TEXT: _ClassVar[Format]
    FORMAT_PREFERENCES: _ClassVar[Format]

class BadRows(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BAD_ROWS_UNSPECIFIED: _ClassVar[BadRows]
    BAD_ROWS_REFUSE: _ClassVar[BadRows]
    BAD_ROWS_DROP: _ClassVar[BadRows]
FORMAT_UNSPECIFIED: Format
FORMAT_CHAT: Format
FORMAT_PROMPT_COMPLETION: Format
FORMAT_ALPACA: Format
FORMAT_SHAREGPT: Format
FORMAT_TEXT: Format
FORMAT_PREFERENCES: Format
BAD_ROWS_UNSPECIFIED: BadRows
BAD_ROWS_REFUSE: BadRows
BAD_ROWS_DROP: BadRows

class Dataset(_message.Message):
    __slots__ = ("name", "display_name", "size_bytes", "sha256", "rows", "tokens", "longest_row_tokens", "create_time", "kind", "task", "report", "labels", "base_model")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Dataset.Kind]
        KIND_CONVERSATIONS: _ClassVar[Dataset.Kind]
        KIND_TEXT: _ClassVar[Dataset.Kind]
        KIND_PREFERENCES: _ClassVar[Dataset.Kind]
    KIND_UNSPECIFIED: Dataset.Kind
    KIND_CONVERSATIONS: Dataset.Kind
    KIND_TEXT: Dataset.Kind
    KIND_PREFERENCES: Dataset.Kind
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LONGEST_ROW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    size_bytes: int
    sha256: str
    rows: int
    tokens: int
    longest_row_tokens: int
    create_time: _timestamp_pb2.Timestamp
    kind: Dataset.Kind
    task: _resources_pb2.Task
    report: DatasetReport
    labels: _containers.RepeatedScalarFieldContainer[str]
    base_model: str
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., rows: _Optional[int] = ..., tokens: _Optional[int] = ..., longest_row_tokens: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[_Union[Dataset.Kind, str]] = ..., task: _Optional[_Union[_resources_pb2.Task, str]] = ..., report: _Optional[_Union[DatasetReport, _Mapping]] = ..., labels: _Optional[_Iterable[str]] = ..., base_model: _Optional[str] = ...) -> None: ...

class UploadDatasetRequest(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: UploadHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[UploadHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class UploadHeader(_message.Message):
    __slots__ = ("dataset_id", "display_name", "format", "mapping", "bad_rows", "task", "validate_only", "size_bytes", "base_model")
    class MappingEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    MAPPING_FIELD_NUMBER: _ClassVar[int]
    BAD_ROWS_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    dataset_id: str
    display_name: str
    format: Format
    mapping: _containers.ScalarMap[str, str]
    bad_rows: BadRows
    task: _resources_pb2.Task
    validate_only: bool
    size_bytes: int
    base_model: str
    def __init__(self, dataset_id: _Optional[str] = ..., display_name: _Optional[str] = ..., format: _Optional[_Union[Format, str]] = ..., mapping: _Optional[_Mapping[str, str]] = ..., bad_rows: _Optional[_Union[BadRows, str]] = ..., task: _Optional[_Union[_resources_pb2.Task, str]] = ..., validate_only: _Optional[bool] = ..., size_bytes: _Optional[int] = ..., base_model: _Optional[str] = ...) -> None: ...

class ImportDatasetRequest(_message.Message):
    __slots__ = ("header", "local_path", "hub")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    LOCAL_PATH_FIELD_NUMBER: _ClassVar[int]
    HUB_FIELD_NUMBER: _ClassVar[int]
    header: UploadHeader
    local_path: str
    hub: HubSplit
    def __init__(self, header: _Optional[_Union[UploadHeader, _Mapping]] = ..., local_path: _Optional[str] = ..., hub: _Optional[_Union[HubSplit, _Mapping]] = ...) -> None: ...

class HubSplit(_message.Message):
    __slots__ = ("repository", "config", "split", "max_rows")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    MAX_ROWS_FIELD_NUMBER: _ClassVar[int]
    repository: str
    config: str
    split: str
    max_rows: int
    def __init__(self, repository: _Optional[str] = ..., config: _Optional[str] = ..., split: _Optional[str] = ..., max_rows: _Optional[int] = ...) -> None: ...

class DatasetReport(_message.Message):
    __slots__ = ("rows_kept", "rows_dropped", "rows_cut", "problems", "reasons", "duplicates", "duplicate_rows", "leaks", "leaked_rows", "tokens", "trained_tokens", "token_percentiles", "longest_row_tokens", "longest_row_line", "labels", "preview")
    ROWS_KEPT_FIELD_NUMBER: _ClassVar[int]
    ROWS_DROPPED_FIELD_NUMBER: _ClassVar[int]
    ROWS_CUT_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_ROWS_FIELD_NUMBER: _ClassVar[int]
    LEAKS_FIELD_NUMBER: _ClassVar[int]
    LEAKED_ROWS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    TRAINED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_PERCENTILES_FIELD_NUMBER: _ClassVar[int]
    LONGEST_ROW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LONGEST_ROW_LINE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    rows_kept: int
    rows_dropped: int
    rows_cut: int
    problems: _containers.RepeatedCompositeFieldContainer[RowProblem]
    reasons: _containers.RepeatedCompositeFieldContainer[ReasonCount]
    duplicates: int
    duplicate_rows: _containers.RepeatedCompositeFieldContainer[RepeatedRow]
    leaks: int
    leaked_rows: _containers.RepeatedCompositeFieldContainer[RepeatedRow]
    tokens: int
    trained_tokens: int
    token_percentiles: _containers.RepeatedCompositeFieldContainer[TokenPercentile]
    longest_row_tokens: int
    longest_row_line: int
    labels: _containers.RepeatedCompositeFieldContainer[LabelCount]
    preview: _containers.RepeatedCompositeFieldContainer[PreviewRow]
    def __init__(self, rows_kept: _Optional[int] = ..., rows_dropped: _Optional[int] = ..., rows_cut: _Optional[int] = ..., problems: _Optional[_Iterable[_Union[RowProblem, _Mapping]]] = ..., reasons: _Optional[_Iterable[_Union[ReasonCount, _Mapping]]] = ..., duplicates: _Optional[int] = ..., duplicate_rows: _Optional[_Iterable[_Union[RepeatedRow, _Mapping]]] = ..., leaks: _Optional[int] = ..., leaked_rows: _Optional[_Iterable[_Union[RepeatedRow, _Mapping]]] = ..., tokens: _Optional[int] = ..., trained_tokens: _Optional[int] = ..., token_percentiles: _Optional[_Iterable[_Union[TokenPercentile, _Mapping]]] = ..., longest_row_tokens: _Optional[int] = ..., longest_row_line: _Optional[int] = ..., labels: _Optional[_Iterable[_Union[LabelCount, _Mapping]]] = ..., preview: _Optional[_Iterable[_Union[PreviewRow, _Mapping]]] = ...) -> None: ...

class RowProblem(_message.Message):
    __slots__ = ("place", "reason", "advice")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    place: str
    reason: str
    advice: str
    def __init__(self, place: _Optional[str] = ..., reason: _Optional[str] = ..., advice: _Optional[str] = ...) -> None: ...

class ReasonCount(_message.Message):
    __slots__ = ("reason", "rows")
    REASON_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    reason: str
    rows: int
    def __init__(self, reason: _Optional[str] = ..., rows: _Optional[int] = ...) -> None: ...

class RepeatedRow(_message.Message):
    __slots__ = ("line", "first_line")
    LINE_FIELD_NUMBER: _ClassVar[int]
    FIRST_LINE_FIELD_NUMBER: _ClassVar[int]
    line: int
    first_line: int
    def __init__(self, line: _Optional[int] = ..., first_line: _Optional[int] = ...) -> None: ...

class TokenPercentile(_message.Message):
    __slots__ = ("percent", "tokens")
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    percent: int
    tokens: int
    def __init__(self, percent: _Optional[int] = ..., tokens: _Optional[int] = ...) -> None: ...

class LabelCount(_message.Message):
    __slots__ = ("label", "rows")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    label: str
    rows: int
    def __init__(self, label: _Optional[str] = ..., rows: _Optional[int] = ...) -> None: ...

class GetDatasetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListDatasetsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDatasetsResponse(_message.Message):
    __slots__ = ("datasets", "next_page_token")
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[Dataset]
    next_page_token: str
    def __init__(self, datasets: _Optional[_Iterable[_Union[Dataset, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteDatasetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteDatasetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PreviewDatasetRequest(_message.Message):
    __slots__ = ("name", "max_rows")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MAX_ROWS_FIELD_NUMBER: _ClassVar[int]
    name: str
    max_rows: int
    def __init__(self, name: _Optional[str] = ..., max_rows: _Optional[int] = ...) -> None: ...

class PreviewDatasetResponse(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[PreviewRow]
    def __init__(self, rows: _Optional[_Iterable[_Union[PreviewRow, _Mapping]]] = ...) -> None: ...

class PreviewRow(_message.Message):
    __slots__ = ("line", "messages", "segments", "tokens", "trained_tokens", "rejected_segments")
    LINE_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    TRAINED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    line: int
    messages: _containers.RepeatedCompositeFieldContainer[_resources_pb2.Message]
    segments: _containers.RepeatedCompositeFieldContainer[RenderedSegment]
    tokens: int
    trained_tokens: int
    rejected_segments: _containers.RepeatedCompositeFieldContainer[RenderedSegment]
    def __init__(self, line: _Optional[int] = ..., messages: _Optional[_Iterable[_Union[_resources_pb2.Message, _Mapping]]] = ..., segments: _Optional[_Iterable[_Union[RenderedSegment, _Mapping]]] = ..., tokens: _Optional[int] = ..., trained_tokens: _Optional[int] = ..., rejected_segments: _Optional[_Iterable[_Union[RenderedSegment, _Mapping]]] = ...) -> None: ...

class RenderedSegment(_message.Message):
    __slots__ = ("text", "trained")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TRAINED_FIELD_NUMBER: _ClassVar[int]
    text: str
    trained: bool
    def __init__(self, text: _Optional[str] = ..., trained: _Optional[bool] = ...) -> None: ...
