"""OpenAI's two kinds of requests for answers: a conversation to reply to, and a text to go on with.

Knows no HTTP and no engine.
"""

from service.gateway.fields import AnswersRequest, Fields
from service.gateway.formats import read_format
from service.jsonshape import Json, array, mapping, text
from service.serving.turn import ChatMessage, ChatTurn

MAX_TOKENS = 32_768
MAX_MESSAGES = 256
MAX_CONTENT_CHARACTERS = 200_000
MAX_TOP_LOGPROBS = 20
"""vLLM's own bound, too."""
MAX_TEXT_LOGPROBS = 5
DEFAULT_TEXT_TOKENS = 16
"""Both as the OpenAI API documents them."""

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_OF_CHATS = frozenset(
    {"messages", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs", "response_format"}
)
_OF_TEXTS = frozenset({"prompt", "max_tokens", "logprobs", "echo", "best_of"})
_MESSAGE_FIELDS = frozenset({"role", "content", "name"})


def read_chat_request(body: bytes) -> AnswersRequest:
    """Read a body of /v1/chat/completions. Raises InvalidRequest naming every field that is wrong."""
    fields = Fields(body, known=_OF_CHATS)
    newer = fields.integer("max_completion_tokens", 1, MAX_TOKENS)
    older = fields.integer("max_tokens", 1, MAX_TOKENS)
    return fields.request(
        ChatTurn(
            messages=_messages(fields),
            max_tokens=older if newer is None else newer,
            logprobs=_chat_logprobs(fields),
            json_schema=_format(fields),
        )
    )


def read_text_request(body: bytes) -> AnswersRequest:
    """Read a body of /v1/completions. Raises InvalidRequest naming every field that is wrong."""
    fields = Fields(body, known=_OF_TEXTS)
    if fields.given.get("echo", False) is not False:
        fields.wrong("echo", "is not supported with any other value than false")
    if fields.given.get("best_of", 1) not in (1, fields.given.get("n", 1)):
        fields.wrong("best_of", "is not supported with any other value than n")
    return fields.request(
        ChatTurn(
            text=_prompt(fields),
            max_tokens=fields.integer("max_tokens", 1, MAX_TOKENS) or DEFAULT_TEXT_TOKENS,
            logprobs=fields.integer("logprobs", 0, MAX_TEXT_LOGPROBS),
        )
    )


def _prompt(fields: Fields) -> str:
    """One text, or a list of one."""
    value = fields.given.get("prompt")
    prompt = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(prompt, str) or not 1 <= len(prompt) <= MAX_CONTENT_CHARACTERS:
        fields.wrong("prompt", f"must be one text of 1 to {MAX_CONTENT_CHARACTERS} characters")
    elif not _is_unicode(prompt):
        fields.wrong("prompt", "has half a surrogate pair, which is no text")
    else:
        return prompt
    return ""


def _chat_logprobs(fields: Fields) -> int | None:
    wanted, top = fields.flag(fields.given, "logprobs"), fields.integer("top_logprobs", 0, MAX_TOP_LOGPROBS)
    if top is not None and not wanted:
        fields.wrong("top_logprobs", "needs logprobs to be true")
    return (top or 0) if wanted else None


def _format(fields: Fields) -> Json | None:
    if "response_format" not in fields.given:
        return None
    schema, violations = read_format(fields.given["response_format"])
    fields.violations.extend(violations)
    return schema


def _messages(fields: Fields) -> tuple[ChatMessage, ...]:
    value = fields.given.get("messages")
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_MESSAGES:
        fields.wrong("messages", f"must be a list of 1 to {MAX_MESSAGES} messages")
        return ()
    return tuple(_message(fields, f"messages[{index}]", each) for index, each in enumerate(value))


def _message(reader: Fields, path: str, value: object) -> ChatMessage:
    try:
        fields = mapping(value)
        for name in fields.keys() - _MESSAGE_FIELDS:
            if fields[name] is not None:
                reader.wrong(f"{path}.{name[:64]}", "is not supported")
        role, content = text(fields.get("role")), _content(fields.get("content"))
    except TypeError as error:
        reader.wrong(path, f"is not a message of text: {error}")
        return ChatMessage(role="user", content="")
    if role not in _ROLES:
        reader.wrong(f"{path}.role", f"must be one of {', '.join(_ROLES)}")
    if not 1 <= len(content) <= MAX_CONTENT_CHARACTERS:
        reader.wrong(f"{path}.content", f"must have 1 to {MAX_CONTENT_CHARACTERS} characters")
    elif not _is_unicode(content):
        reader.wrong(f"{path}.content", "has half a surrogate pair, which is no text")
    return ChatMessage(role=_ROLES.get(role, "user"), content=content)


def _content(value: object) -> str:
    """A text, or a list of parts that are texts. Raises TypeError."""
    if isinstance(value, str):
        return value
    parts = [mapping(part) for part in array(value)]
    for part in parts:
        if part.get("type") != "text":
            raise TypeError(f"a part of type {str(part.get('type'))[:32]!r}, where only text is supported")
    return "".join(text(part.get("text")) for part in parts)


def _is_unicode(content: str) -> bool:
    try:
        content.encode()
    except UnicodeEncodeError:
        return False
    return True
