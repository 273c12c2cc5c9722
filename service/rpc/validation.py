"""Checks every request against the rules in the protos, all fields at once.

The rules themselves stand in `protos/`; what needs the registry or the engine is checked by the servicers.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import protovalidate
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from hotlora.buf.validate import validate_pb2
from service.errors import FieldViolation, InvalidRequest
from service.rpc.errors import cut

_MANY_ITEMS = 1_000
"""A list longer than this is refused by its length alone. A request of a megabyte can hold half a million
empty items, and looking into each takes 20 s; no list that we accept is longer than 256."""
_SHOWN_CHARACTERS = 60

Request = TypeVar("Request", bound=Message)


def check(request: Message) -> None:
    """Raise InvalidRequest, with every violation, unless `request` keeps the rules of its proto."""
    violations = list(_overlong_lists(request, "")) or _broken_rules(request)
    if violations:
        raise InvalidRequest(violations)


def without(request: Request, fields: Iterable[str]) -> Request:
    """A copy in which these fields, as violations name them, are not set: of lists and maps the whole."""
    rest = type(request)()
    rest.CopyFrom(request)
    for field in fields:
        *outer, name = field.partition("[")[0].split(".")
        message: Any = rest
        for part in outer:
            message = getattr(message, part)
        message.ClearField(name)
    return rest


def _overlong_lists(message: Message, prefix: str) -> Iterator[FieldViolation]:
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        if field.is_repeated:
            if len(value) > _MANY_ITEMS:
                yield FieldViolation(field=path, description=_length_rule(field, len(value)))
        elif field.message_type is not None:
            yield from _overlong_lists(value, f"{path}.")


def _length_rule(field: FieldDescriptor, length: int) -> str:
    extensions: Any = field.GetOptions().Extensions  # typeshed does not know extensions of options
    rules = extensions[validate_pb2.field]
    most = rules.repeated.max_items if rules.repeated.HasField("max_items") else _MANY_ITEMS
    return f"must contain no more than {most} item(s), got {length}"


def _broken_rules(request: Message) -> list[FieldViolation]:
    return [
        FieldViolation(field=_path(violation), description=_description(violation))
        for violation in protovalidate.collect_violations(request)
    ]


def _path(violation: protovalidate.Violation) -> str:
    path = ""
    for element in violation.proto.field.elements if violation.proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            path += f"[{element.subscript.value}]"
    return path


def _description(violation: protovalidate.Violation) -> str:
    message = violation.proto.message
    value = violation.field_value
    if isinstance(value, str):
        return f"{message}, got {cut(ascii(value), _SHOWN_CHARACTERS)}"
    if isinstance(value, int | float):
        return f"{message}, got {value}"
    return message
