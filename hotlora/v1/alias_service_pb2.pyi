import datetime

from hotlora.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Alias(_message.Message):
    __slots__ = ("name", "model", "shares", "revision", "gated", "create_time", "update_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    GATED_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: str
    shares: _containers.RepeatedCompositeFieldContainer[TrafficShare]
    revision: int
    gated: bool
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., model: _Optional[str] = ..., shares: _Optional[_Iterable[_Union[TrafficShare, _Mapping]]] = ..., revision: _Optional[int] = ..., gated: _Optional[bool] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class TrafficShare(_message.Message):
    __slots__ = ("version", "percent")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    version: int
    percent: int
    def __init__(self, version: _Optional[int] = ..., percent: _Optional[int] = ...) -> None: ...

class AliasChange(_message.Message):
    __slots__ = ("revision", "kind", "time", "author", "before", "after", "forced", "gated")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[AliasChange.Kind]
        KIND_PROMOTED: _ClassVar[AliasChange.Kind]
        KIND_SPLIT: _ClassVar[AliasChange.Kind]
        KIND_ROLLED_BACK: _ClassVar[AliasChange.Kind]
        KIND_DELETED: _ClassVar[AliasChange.Kind]
        KIND_GATE_CHANGED: _ClassVar[AliasChange.Kind]
    KIND_UNSPECIFIED: AliasChange.Kind
    KIND_PROMOTED: AliasChange.Kind
    KIND_SPLIT: AliasChange.Kind
    KIND_ROLLED_BACK: AliasChange.Kind
    KIND_DELETED: AliasChange.Kind
    KIND_GATE_CHANGED: AliasChange.Kind
    REVISION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    FORCED_FIELD_NUMBER: _ClassVar[int]
    GATED_FIELD_NUMBER: _ClassVar[int]
    revision: int
    kind: AliasChange.Kind
    time: _timestamp_pb2.Timestamp
    author: str
    before: _containers.RepeatedCompositeFieldContainer[TrafficShare]
    after: _containers.RepeatedCompositeFieldContainer[TrafficShare]
    forced: bool
    gated: bool
    def __init__(self, revision: _Optional[int] = ..., kind: _Optional[_Union[AliasChange.Kind, str]] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., author: _Optional[str] = ..., before: _Optional[_Iterable[_Union[TrafficShare, _Mapping]]] = ..., after: _Optional[_Iterable[_Union[TrafficShare, _Mapping]]] = ..., forced: _Optional[bool] = ..., gated: _Optional[bool] = ...) -> None: ...

class GetAliasRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListAliasesRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListAliasesResponse(_message.Message):
    __slots__ = ("aliases", "next_page_token")
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    aliases: _containers.RepeatedCompositeFieldContainer[Alias]
    next_page_token: str
    def __init__(self, aliases: _Optional[_Iterable[_Union[Alias, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class PromoteVersionRequest(_message.Message):
    __slots__ = ("name", "version", "gated", "force", "expected_revision", "author")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    GATED_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    gated: bool
    force: bool
    expected_revision: int
    author: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., gated: _Optional[bool] = ..., force: _Optional[bool] = ..., expected_revision: _Optional[int] = ..., author: _Optional[str] = ...) -> None: ...

class SplitTrafficRequest(_message.Message):
    __slots__ = ("name", "shares", "gated", "force", "expected_revision", "author")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    GATED_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    shares: _containers.RepeatedCompositeFieldContainer[TrafficShare]
    gated: bool
    force: bool
    expected_revision: int
    author: str
    def __init__(self, name: _Optional[str] = ..., shares: _Optional[_Iterable[_Union[TrafficShare, _Mapping]]] = ..., gated: _Optional[bool] = ..., force: _Optional[bool] = ..., expected_revision: _Optional[int] = ..., author: _Optional[str] = ...) -> None: ...

class RollBackAliasRequest(_message.Message):
    __slots__ = ("name", "steps", "expected_revision", "author")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    steps: int
    expected_revision: int
    author: str
    def __init__(self, name: _Optional[str] = ..., steps: _Optional[int] = ..., expected_revision: _Optional[int] = ..., author: _Optional[str] = ...) -> None: ...

class DeleteAliasRequest(_message.Message):
    __slots__ = ("name", "expected_revision", "author")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    expected_revision: int
    author: str
    def __init__(self, name: _Optional[str] = ..., expected_revision: _Optional[int] = ..., author: _Optional[str] = ...) -> None: ...

class DeleteAliasResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAliasChangesRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListAliasChangesResponse(_message.Message):
    __slots__ = ("changes", "next_page_token")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[AliasChange]
    next_page_token: str
    def __init__(self, changes: _Optional[_Iterable[_Union[AliasChange, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
