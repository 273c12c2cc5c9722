import datetime

from hotlora.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from hotlora.v1 import tuning_service_pb2 as _tuning_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Example(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXAMPLE_UNSPECIFIED: _ClassVar[Example]
    EXAMPLE_LLAMA_7B: _ClassVar[Example]
    EXAMPLE_GPT2: _ClassVar[Example]

class MemoryPart(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMORY_PART_UNSPECIFIED: _ClassVar[MemoryPart]
    MEMORY_PART_WEIGHTS: _ClassVar[MemoryPart]
    MEMORY_PART_ADAPTER: _ClassVar[MemoryPart]
    MEMORY_PART_GRADIENTS: _ClassVar[MemoryPart]
    MEMORY_PART_OPTIMIZER: _ClassVar[MemoryPart]
    MEMORY_PART_ACTIVATIONS: _ClassVar[MemoryPart]
    MEMORY_PART_BATCH: _ClassVar[MemoryPart]
    MEMORY_PART_OVERHEAD: _ClassVar[MemoryPart]

class SpeedSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPEED_SOURCE_UNSPECIFIED: _ClassVar[SpeedSource]
    SPEED_SOURCE_PROBE: _ClassVar[SpeedSource]
    SPEED_SOURCE_LIKENESS: _ClassVar[SpeedSource]
    SPEED_SOURCE_ARITHMETIC: _ClassVar[SpeedSource]
EXAMPLE_UNSPECIFIED: Example
EXAMPLE_LLAMA_7B: Example
EXAMPLE_GPT2: Example
MEMORY_PART_UNSPECIFIED: MemoryPart
MEMORY_PART_WEIGHTS: MemoryPart
MEMORY_PART_ADAPTER: MemoryPart
MEMORY_PART_GRADIENTS: MemoryPart
MEMORY_PART_OPTIMIZER: MemoryPart
MEMORY_PART_ACTIVATIONS: MemoryPart
MEMORY_PART_BATCH: MemoryPart
MEMORY_PART_OVERHEAD: MemoryPart
SPEED_SOURCE_UNSPECIFIED: SpeedSource
SPEED_SOURCE_PROBE: SpeedSource
SPEED_SOURCE_LIKENESS: SpeedSource
SPEED_SOURCE_ARITHMETIC: SpeedSource

class PlanRequest(_message.Message):
    __slots__ = ("base_model", "dataset", "data", "device", "model", "example", "hyperparameters", "probe", "probe_technique")
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_FIELD_NUMBER: _ClassVar[int]
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    PROBE_TECHNIQUE_FIELD_NUMBER: _ClassVar[int]
    base_model: str
    dataset: str
    data: DataDescription
    device: DeviceDescription
    model: ModelDescription
    example: Example
    hyperparameters: _tuning_service_pb2.Hyperparameters
    probe: bool
    probe_technique: _tuning_service_pb2.Technique
    def __init__(self, base_model: _Optional[str] = ..., dataset: _Optional[str] = ..., data: _Optional[_Union[DataDescription, _Mapping]] = ..., device: _Optional[_Union[DeviceDescription, _Mapping]] = ..., model: _Optional[_Union[ModelDescription, _Mapping]] = ..., example: _Optional[_Union[Example, str]] = ..., hyperparameters: _Optional[_Union[_tuning_service_pb2.Hyperparameters, _Mapping]] = ..., probe: _Optional[bool] = ..., probe_technique: _Optional[_Union[_tuning_service_pb2.Technique, str]] = ...) -> None: ...

class DataDescription(_message.Message):
    __slots__ = ("rows", "tokens", "longest_row_tokens", "trained_share", "objective", "texts", "has_task")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LONGEST_ROW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TRAINED_SHARE_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    HAS_TASK_FIELD_NUMBER: _ClassVar[int]
    rows: int
    tokens: int
    longest_row_tokens: int
    trained_share: float
    objective: _tuning_service_pb2.Objective
    texts: bool
    has_task: bool
    def __init__(self, rows: _Optional[int] = ..., tokens: _Optional[int] = ..., longest_row_tokens: _Optional[int] = ..., trained_share: _Optional[float] = ..., objective: _Optional[_Union[_tuning_service_pb2.Objective, str]] = ..., texts: _Optional[bool] = ..., has_task: _Optional[bool] = ...) -> None: ...

class DeviceDescription(_message.Message):
    __slots__ = ("kind", "memory_bytes", "operations_per_second")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[DeviceDescription.Kind]
        KIND_CPU: _ClassVar[DeviceDescription.Kind]
        KIND_CUDA: _ClassVar[DeviceDescription.Kind]
    KIND_UNSPECIFIED: DeviceDescription.Kind
    KIND_CPU: DeviceDescription.Kind
    KIND_CUDA: DeviceDescription.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    kind: DeviceDescription.Kind
    memory_bytes: int
    operations_per_second: float
    def __init__(self, kind: _Optional[_Union[DeviceDescription.Kind, str]] = ..., memory_bytes: _Optional[int] = ..., operations_per_second: _Optional[float] = ...) -> None: ...

class ModelDescription(_message.Message):
    __slots__ = ("layers", "hidden_size", "attention_heads", "key_value_heads", "intermediate_size", "vocabulary_size", "tied_embeddings")
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_SIZE_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_HEADS_FIELD_NUMBER: _ClassVar[int]
    KEY_VALUE_HEADS_FIELD_NUMBER: _ClassVar[int]
    INTERMEDIATE_SIZE_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_SIZE_FIELD_NUMBER: _ClassVar[int]
    TIED_EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    layers: int
    hidden_size: int
    attention_heads: int
    key_value_heads: int
    intermediate_size: int
    vocabulary_size: int
    tied_embeddings: bool
    def __init__(self, layers: _Optional[int] = ..., hidden_size: _Optional[int] = ..., attention_heads: _Optional[int] = ..., key_value_heads: _Optional[int] = ..., intermediate_size: _Optional[int] = ..., vocabulary_size: _Optional[int] = ..., tied_embeddings: _Optional[bool] = ...) -> None: ...

class PlanResponse(_message.Message):
    __slots__ = ("base_model", "parameters", "data", "device", "techniques", "recommendation")
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    TECHNIQUES_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDATION_FIELD_NUMBER: _ClassVar[int]
    base_model: str
    parameters: int
    data: DataDescription
    device: Device
    techniques: _containers.RepeatedCompositeFieldContainer[TechniquePlan]
    recommendation: Recommendation
    def __init__(self, base_model: _Optional[str] = ..., parameters: _Optional[int] = ..., data: _Optional[_Union[DataDescription, _Mapping]] = ..., device: _Optional[_Union[Device, _Mapping]] = ..., techniques: _Optional[_Iterable[_Union[TechniquePlan, _Mapping]]] = ..., recommendation: _Optional[_Union[Recommendation, _Mapping]] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("kind", "memory_bytes", "available_bytes", "is_own")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    IS_OWN_FIELD_NUMBER: _ClassVar[int]
    kind: DeviceDescription.Kind
    memory_bytes: int
    available_bytes: int
    is_own: bool
    def __init__(self, kind: _Optional[_Union[DeviceDescription.Kind, str]] = ..., memory_bytes: _Optional[int] = ..., available_bytes: _Optional[int] = ..., is_own: _Optional[bool] = ...) -> None: ...

class TechniquePlan(_message.Message):
    __slots__ = ("technique", "memory", "total_bytes", "fits", "trained_parameters", "hyperparameters", "reasons", "steps", "tokens", "seconds", "speed_source", "probe_time", "textbook", "unservable")
    TECHNIQUE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    FITS_FIELD_NUMBER: _ClassVar[int]
    TRAINED_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    SPEED_SOURCE_FIELD_NUMBER: _ClassVar[int]
    PROBE_TIME_FIELD_NUMBER: _ClassVar[int]
    TEXTBOOK_FIELD_NUMBER: _ClassVar[int]
    UNSERVABLE_FIELD_NUMBER: _ClassVar[int]
    technique: _tuning_service_pb2.Technique
    memory: _containers.RepeatedCompositeFieldContainer[MemoryLine]
    total_bytes: int
    fits: bool
    trained_parameters: int
    hyperparameters: _tuning_service_pb2.Hyperparameters
    reasons: _containers.RepeatedCompositeFieldContainer[SettingReason]
    steps: int
    tokens: int
    seconds: float
    speed_source: SpeedSource
    probe_time: _timestamp_pb2.Timestamp
    textbook: _containers.RepeatedCompositeFieldContainer[TextbookLine]
    unservable: str
    def __init__(self, technique: _Optional[_Union[_tuning_service_pb2.Technique, str]] = ..., memory: _Optional[_Iterable[_Union[MemoryLine, _Mapping]]] = ..., total_bytes: _Optional[int] = ..., fits: _Optional[bool] = ..., trained_parameters: _Optional[int] = ..., hyperparameters: _Optional[_Union[_tuning_service_pb2.Hyperparameters, _Mapping]] = ..., reasons: _Optional[_Iterable[_Union[SettingReason, _Mapping]]] = ..., steps: _Optional[int] = ..., tokens: _Optional[int] = ..., seconds: _Optional[float] = ..., speed_source: _Optional[_Union[SpeedSource, str]] = ..., probe_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., textbook: _Optional[_Iterable[_Union[TextbookLine, _Mapping]]] = ..., unservable: _Optional[str] = ...) -> None: ...

class MemoryLine(_message.Message):
    __slots__ = ("part", "bytes", "explanation")
    PART_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    part: MemoryPart
    bytes: int
    explanation: str
    def __init__(self, part: _Optional[_Union[MemoryPart, str]] = ..., bytes: _Optional[int] = ..., explanation: _Optional[str] = ...) -> None: ...

class TextbookLine(_message.Message):
    __slots__ = ("part", "bytes", "rule", "printed_bytes", "real_bytes", "reality")
    PART_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    PRINTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    REAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    REALITY_FIELD_NUMBER: _ClassVar[int]
    part: MemoryPart
    bytes: int
    rule: str
    printed_bytes: int
    real_bytes: int
    reality: str
    def __init__(self, part: _Optional[_Union[MemoryPart, str]] = ..., bytes: _Optional[int] = ..., rule: _Optional[str] = ..., printed_bytes: _Optional[int] = ..., real_bytes: _Optional[int] = ..., reality: _Optional[str] = ...) -> None: ...

class SettingReason(_message.Message):
    __slots__ = ("field", "value", "reason")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    field: str
    value: float
    reason: str
    def __init__(self, field: _Optional[str] = ..., value: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class Recommendation(_message.Message):
    __slots__ = ("technique", "fits", "reasons")
    TECHNIQUE_FIELD_NUMBER: _ClassVar[int]
    FITS_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    technique: _tuning_service_pb2.Technique
    fits: bool
    reasons: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, technique: _Optional[_Union[_tuning_service_pb2.Technique, str]] = ..., fits: _Optional[bool] = ..., reasons: _Optional[_Iterable[str]] = ...) -> None: ...
