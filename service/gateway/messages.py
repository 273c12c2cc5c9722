"""Messages of a chat request, read by our rules: text alone, and what was said with tools.

Their order is checked by `service.serving.turn`. Knows no HTTP and no engine.
"""

from service.gateway.fields import Fields
from service.gateway.tools import read_calls, read_id
from service.jsonshape import NO_UNICODE, Json, array, given, is_unicode, mapping, text
from service.serving.turn import ChatMessage
from trainer.rendering import WrittenCall

MAX_MESSAGES = 256
MAX_CONTENT_CHARACTERS = 200_000

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_FIELDS = frozenset({"role", "content", "name"})
_OWN_FIELDS = {"assistant": _FIELDS | {"tool_calls"}, "tool": _FIELDS | {"tool_call_id"}}


def read_messages(fields: Fields) -> tuple[ChatMessage, ...]:
    """The conversation. What is wrong is told to `fields`."""
    value = fields.given.get("messages")
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_MESSAGES:
        fields.wrong("messages", f"must be a list of 1 to {MAX_MESSAGES} messages")
        return ()
    return tuple(_message(fields, f"messages[{index}]", each) for index, each in enumerate(value))


def _message(reader: Fields, path: str, value: object) -> ChatMessage:
    try:
        fields = given(value)
        role = text(fields.get("role"))
        for name in fields.keys() - _OWN_FIELDS.get(role, _FIELDS):
            reader.wrong(f"{path}.{name[:64]}", "is not supported")
        has_calls = role == "assistant" and "tool_calls" in fields
        content = "" if has_calls and "content" not in fields else _content(fields.get("content"))
    except TypeError as error:
        reader.wrong(path, f"is not a message of text: {error}")
        return ChatMessage(role="user", content="")
    if role not in _ROLES:
        reader.wrong(f"{path}.role", f"must be one of {', '.join(_ROLES)}")
    fewest = 0 if has_calls or role == "tool" else 1
    if not fewest <= len(content) <= MAX_CONTENT_CHARACTERS:
        reader.wrong(f"{path}.content", f"must have {fewest} to {MAX_CONTENT_CHARACTERS} characters")
    elif not is_unicode(content):
        reader.wrong(f"{path}.content", NO_UNICODE)
    return ChatMessage(
        role=_ROLES.get(role, "user"),
        content=content,
        calls=_calls(reader, path, fields["tool_calls"]) if has_calls else (),
        call_id=_call_id(reader, path, fields) if role == "tool" else "",
    )


def _calls(reader: Fields, path: str, value: object) -> tuple[WrittenCall, ...]:
    calls, violations = read_calls(value, f"{path}.tool_calls")
    reader.violations.extend(violations)
    return calls


def _call_id(reader: Fields, path: str, fields: Json) -> str:
    try:
        return read_id(fields.get("tool_call_id"))
    except (TypeError, ValueError) as error:
        reader.wrong(f"{path}.tool_call_id", f"is no id of a call: {error}")
        return ""


def _content(value: object) -> str:
    """A text, or a list of parts that are texts. Raises TypeError."""
    if isinstance(value, str):
        return value
    parts = [mapping(part) for part in array(value)]
    for part in parts:
        if part.get("type") != "text":
            raise TypeError(f"a part of type {str(part.get('type'))[:32]!r}, where only text is supported")
    return "".join(text(part.get("text")) for part in parts)
