"""OpenAI's two kinds of requests for answers: a conversation to reply to, and a text to go on with.

Knows no HTTP and no engine.
"""

from service.gateway.fields import AnswersRequest, Fields
from service.gateway.formats import read_format
from service.gateway.messages import MAX_CONTENT_CHARACTERS, read_messages
from service.gateway.tools import FIELDS as TOOL_FIELDS
from service.gateway.tools import read_tools
from service.jsonshape import NO_UNICODE, Json, is_unicode
from service.serving.turn import ChatTurn

MAX_TOKENS = 32_768
MAX_TOP_LOGPROBS = 20
"""vLLM's own bound, too."""
MAX_TEXT_LOGPROBS = 5
DEFAULT_TEXT_TOKENS = 16
"""Both as the OpenAI API documents them."""

_OF_CHATS = TOOL_FIELDS | {
    *("messages", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs", "response_format")
}
_OF_TEXTS = frozenset({"prompt", "max_tokens", "logprobs", "echo", "best_of"})


def read_chat_request(body: bytes) -> AnswersRequest:
    """Read a body of /v1/chat/completions. Raises InvalidRequest naming every field that is wrong."""
    fields = Fields(body, known=_OF_CHATS)
    tools, json_schema = read_tools(fields), _format(fields)
    if tools and json_schema is not None:
        rule = "is not supported together with tools: an answer that fits it calls none"
        fields.wrong("response_format", f"{rule}; leave one of them out, or let tool_choice be none")
    newer = fields.integer("max_completion_tokens", 1, MAX_TOKENS)
    older = fields.integer("max_tokens", 1, MAX_TOKENS)
    return fields.request(
        ChatTurn(
            messages=read_messages(fields),
            max_tokens=older if newer is None else newer,
            logprobs=_chat_logprobs(fields),
            json_schema=json_schema,
            tools=tools,
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
    elif not is_unicode(prompt):
        fields.wrong("prompt", NO_UNICODE)
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
