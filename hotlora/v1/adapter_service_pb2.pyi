import datetime

from hotlora.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from hotlora.v1 import resources_pb2 as _resources_pb2
from hotlora.v1 import tuning_service_pb2 as _tuning_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Adapter(_message.Message):
    __slots__ = ("name", "base_model", "latest_version", "active_version", "create_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    LATEST_VERSION_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    base_model: str
    latest_version: int
    active_version: int
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., base_model: _Optional[str] = ..., latest_version: _Optional[int] = ..., active_version: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class AdapterVersion(_message.Message):
    __slots__ = ("name", "model", "state", "failure", "tuning_job", "technique", "rank", "digest", "size_bytes", "verification", "create_time", "active_time")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[AdapterVersion.State]
        STATE_PENDING: _ClassVar[AdapterVersion.State]
        STATE_VERIFYING: _ClassVar[AdapterVersion.State]
        STATE_ACTIVE: _ClassVar[AdapterVersion.State]
        STATE_FAILED: _ClassVar[AdapterVersion.State]
        STATE_RETIRING: _ClassVar[AdapterVersion.State]
        STATE_RETIRED: _ClassVar[AdapterVersion.State]
    STATE_UNSPECIFIED: AdapterVersion.State
    STATE_PENDING: AdapterVersion.State
    STATE_VERIFYING: AdapterVersion.State
    STATE_ACTIVE: AdapterVersion.State
    STATE_FAILED: AdapterVersion.State
    STATE_RETIRING: AdapterVersion.State
    STATE_RETIRED: AdapterVersion.State
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    TUNING_JOB_FIELD_NUMBER: _ClassVar[int]
    TECHNIQUE_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    VERIFICATION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: str
    state: AdapterVersion.State
    failure: _resources_pb2.Failure
    tuning_job: str
    technique: _tuning_service_pb2.Technique
    rank: int
    digest: str
    size_bytes: int
    verification: Verification
    create_time: _timestamp_pb2.Timestamp
    active_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., model: _Optional[str] = ..., state: _Optional[_Union[AdapterVersion.State, str]] = ..., failure: _Optional[_Union[_resources_pb2.Failure, _Mapping]] = ..., tuning_job: _Optional[str] = ..., technique: _Optional[_Union[_tuning_service_pb2.Technique, str]] = ..., rank: _Optional[int] = ..., digest: _Optional[str] = ..., size_bytes: _Optional[int] = ..., verification: _Optional[_Union[Verification, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., active_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Verification(_message.Message):
    __slots__ = ("tokens", "adapter_difference", "effect", "trained_effect", "noise", "tolerance", "seconds", "verify_time", "quantisation_difference", "strength", "strength_error")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    TRAINED_EFFECT_FIELD_NUMBER: _ClassVar[int]
    NOISE_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    VERIFY_TIME_FIELD_NUMBER: _ClassVar[int]
    QUANTISATION_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_ERROR_FIELD_NUMBER: _ClassVar[int]
    tokens: int
    adapter_difference: float
    effect: float
    trained_effect: float
    noise: float
    tolerance: float
    seconds: float
    verify_time: _timestamp_pb2.Timestamp
    quantisation_difference: float
    strength: float
    strength_error: float
    def __init__(self, tokens: _Optional[int] = ..., adapter_difference: _Optional[float] = ..., effect: _Optional[float] = ..., trained_effect: _Optional[float] = ..., noise: _Optional[float] = ..., tolerance: _Optional[float] = ..., seconds: _Optional[float] = ..., verify_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., quantisation_difference: _Optional[float] = ..., strength: _Optional[float] = ..., strength_error: _Optional[float] = ...) -> None: ...

class GetAdapterRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListAdaptersRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListAdaptersResponse(_message.Message):
    __slots__ = ("adapters", "next_page_token")
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    adapters: _containers.RepeatedCompositeFieldContainer[Adapter]
    next_page_token: str
    def __init__(self, adapters: _Optional[_Iterable[_Union[Adapter, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteAdapterRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteAdapterResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetAdapterVersionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListAdapterVersionsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListAdapterVersionsResponse(_message.Message):
    __slots__ = ("adapter_versions", "next_page_token")
    ADAPTER_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    adapter_versions: _containers.RepeatedCompositeFieldContainer[AdapterVersion]
    next_page_token: str
    def __init__(self, adapter_versions: _Optional[_Iterable[_Union[AdapterVersion, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class LoadAdapterVersionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class UnloadAdapterVersionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class WatchAdapterVersionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ExportAdapterVersionRequest(_message.Message):
    __slots__ = ("name", "format", "gguf_type")
    class Format(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FORMAT_UNSPECIFIED: _ClassVar[ExportAdapterVersionRequest.Format]
        FORMAT_PEFT: _ClassVar[ExportAdapterVersionRequest.Format]
        FORMAT_MERGED: _ClassVar[ExportAdapterVersionRequest.Format]
        FORMAT_GGUF: _ClassVar[ExportAdapterVersionRequest.Format]
    FORMAT_UNSPECIFIED: ExportAdapterVersionRequest.Format
    FORMAT_PEFT: ExportAdapterVersionRequest.Format
    FORMAT_MERGED: ExportAdapterVersionRequest.Format
    FORMAT_GGUF: ExportAdapterVersionRequest.Format
    class GgufType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        GGUF_TYPE_UNSPECIFIED: _ClassVar[ExportAdapterVersionRequest.GgufType]
        GGUF_TYPE_F16: _ClassVar[ExportAdapterVersionRequest.GgufType]
        GGUF_TYPE_BF16: _ClassVar[ExportAdapterVersionRequest.GgufType]
        GGUF_TYPE_Q8_0: _ClassVar[ExportAdapterVersionRequest.GgufType]
    GGUF_TYPE_UNSPECIFIED: ExportAdapterVersionRequest.GgufType
    GGUF_TYPE_F16: ExportAdapterVersionRequest.GgufType
    GGUF_TYPE_BF16: ExportAdapterVersionRequest.GgufType
    GGUF_TYPE_Q8_0: ExportAdapterVersionRequest.GgufType
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    GGUF_TYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    format: ExportAdapterVersionRequest.Format
    gguf_type: ExportAdapterVersionRequest.GgufType
    def __init__(self, name: _Optional[str] = ..., format: _Optional[_Union[ExportAdapterVersionRequest.Format, str]] = ..., gguf_type: _Optional[_Union[ExportAdapterVersionRequest.GgufType, str]] = ...) -> None: ...

class ExportAdapterVersionResponse(_message.Message):
    __slots__ = ("file", "chunk")
    FILE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    file: ExportedFile
    chunk: bytes
    def __init__(self, file: _Optional[_Union[ExportedFile, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class ExportedFile(_message.Message):
    __slots__ = ("name", "size_bytes", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_bytes: int
    sha256: str
    def __init__(self, name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class ImportAdapterVersionRequest(_message.Message):
    __slots__ = ("header", "file", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: ImportHeader
    file: FileHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[ImportHeader, _Mapping]] = ..., file: _Optional[_Union[FileHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class ImportHeader(_message.Message):
    __slots__ = ("adapter_id", "base_model", "local_path")
    ADAPTER_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    LOCAL_PATH_FIELD_NUMBER: _ClassVar[int]
    adapter_id: str
    base_model: str
    local_path: str
    def __init__(self, adapter_id: _Optional[str] = ..., base_model: _Optional[str] = ..., local_path: _Optional[str] = ...) -> None: ...

class FileHeader(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...
