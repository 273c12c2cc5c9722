import datetime

from hotlora.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from hotlora.v1 import adapter_service_pb2 as _adapter_service_pb2
from hotlora.v1 import resources_pb2 as _resources_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason

class ChatRequest(_message.Message):
    __slots__ = ("model", "messages", "max_tokens", "temperature", "top_p", "seed", "stop", "sticky_key")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    STICKY_KEY_FIELD_NUMBER: _ClassVar[int]
    model: str
    messages: _containers.RepeatedCompositeFieldContainer[_resources_pb2.Message]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    sticky_key: str
    def __init__(self, model: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[_resources_pb2.Message, _Mapping]]] = ..., max_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., seed: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ..., sticky_key: _Optional[str] = ...) -> None: ...

class ChatResponse(_message.Message):
    __slots__ = ("delta", "model", "finish_reason", "prompt_tokens", "completion_tokens", "time_to_first_token_seconds", "elapsed_seconds")
    DELTA_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    delta: str
    model: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    time_to_first_token_seconds: float
    elapsed_seconds: float
    def __init__(self, delta: _Optional[str] = ..., model: _Optional[str] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., time_to_first_token_seconds: _Optional[float] = ..., elapsed_seconds: _Optional[float] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "engine", "replicas")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    engine: Engine
    replicas: _containers.RepeatedCompositeFieldContainer[Replica]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., engine: _Optional[_Union[Engine, _Mapping]] = ..., replicas: _Optional[_Iterable[_Union[Replica, _Mapping]]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("id", "base_model", "adapter_version", "state", "available", "max_model_length", "serving", "create_time")
    class Serving(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SERVING_UNSPECIFIED: _ClassVar[Model.Serving]
        SERVING_READY: _ClassVar[Model.Serving]
        SERVING_STARTING: _ClassVar[Model.Serving]
        SERVING_ASLEEP: _ClassVar[Model.Serving]
        SERVING_NONE: _ClassVar[Model.Serving]
    SERVING_UNSPECIFIED: Model.Serving
    SERVING_READY: Model.Serving
    SERVING_STARTING: Model.Serving
    SERVING_ASLEEP: Model.Serving
    SERVING_NONE: Model.Serving
    ID_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_LENGTH_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    id: str
    base_model: str
    adapter_version: str
    state: _adapter_service_pb2.AdapterVersion.State
    available: bool
    max_model_length: int
    serving: Model.Serving
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., base_model: _Optional[str] = ..., adapter_version: _Optional[str] = ..., state: _Optional[_Union[_adapter_service_pb2.AdapterVersion.State, str]] = ..., available: _Optional[bool] = ..., max_model_length: _Optional[int] = ..., serving: _Optional[_Union[Model.Serving, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Engine(_message.Message):
    __slots__ = ("state", "restarts", "message", "max_rank")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Engine.State]
        STATE_STARTING: _ClassVar[Engine.State]
        STATE_READY: _ClassVar[Engine.State]
        STATE_DOWN: _ClassVar[Engine.State]
    STATE_UNSPECIFIED: Engine.State
    STATE_STARTING: Engine.State
    STATE_READY: Engine.State
    STATE_DOWN: Engine.State
    STATE_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MAX_RANK_FIELD_NUMBER: _ClassVar[int]
    state: Engine.State
    restarts: int
    message: str
    max_rank: int
    def __init__(self, state: _Optional[_Union[Engine.State, str]] = ..., restarts: _Optional[int] = ..., message: _Optional[str] = ..., max_rank: _Optional[int] = ...) -> None: ...

class Replica(_message.Message):
    __slots__ = ("name", "state", "message", "restarts", "generation", "models", "adapter_slots", "adapter_cache", "base_model", "rejections")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_SLOTS_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_CACHE_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    REJECTIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: Engine.State
    message: str
    restarts: int
    generation: int
    models: _containers.RepeatedScalarFieldContainer[str]
    adapter_slots: int
    adapter_cache: int
    base_model: str
    rejections: _containers.RepeatedCompositeFieldContainer[Rejection]
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[Engine.State, str]] = ..., message: _Optional[str] = ..., restarts: _Optional[int] = ..., generation: _Optional[int] = ..., models: _Optional[_Iterable[str]] = ..., adapter_slots: _Optional[int] = ..., adapter_cache: _Optional[int] = ..., base_model: _Optional[str] = ..., rejections: _Optional[_Iterable[_Union[Rejection, _Mapping]]] = ...) -> None: ...

class Rejection(_message.Message):
    __slots__ = ("model", "failure")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    model: str
    failure: _resources_pb2.Failure
    def __init__(self, model: _Optional[str] = ..., failure: _Optional[_Union[_resources_pb2.Failure, _Mapping]] = ...) -> None: ...
