"""What is asked in a chat and what is answered, as plain data; and the checks that need nothing else.

Ranges of single fields stand at ChatRequest in the proto and are checked at the edge that a request comes
in by; the order of messages is checked here, for all edges.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from service.engine.wire import TokenLogprob
from service.errors import FieldViolation, InvalidRequest
from service.jsonshape import Json
from service.registry import VersionRow
from trainer.rendering import ReadCall, Tool, WrittenCall

DEFAULT_MAX_TOKENS = 256


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    """It calls tools, which only a turn with tools does."""


class Serving(StrEnum):
    """Whether a model answers now."""

    READY = "READY"
    STARTING = "STARTING"
    """It will, by itself."""
    ASLEEP = "ASLEEP"
    """The first request wakes it."""
    NONE = "NONE"


@dataclass(frozen=True, kw_only=True)
class ChatMessage:
    """One turn of the conversation so far."""

    role: str
    """system, user, assistant or tool."""
    content: str
    """Not empty, but for an assistant that calls tools and a tool that has nothing to say."""
    calls: tuple[WrittenCall, ...] = ()
    """Of tools, by the assistant."""
    call_id: str = ""
    """Of the call that a tool answers."""


@dataclass(frozen=True, kw_only=True)
class ChatTurn:
    """What is asked, and of whom."""

    model: str = ""
    """Empty: the base model."""
    messages: tuple[ChatMessage, ...] = ()
    text: str | None = None
    """Something to go on with as it stands, in the place of messages; None: there are messages."""
    max_tokens: int | None = None
    """None: `DEFAULT_MAX_TOKENS`, or what the context leaves if that is less."""
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    """None: random."""
    stop: tuple[str, ...] = ()
    sticky_key: str = ""
    """Requests with the same one get the same version, where an alias has several. Empty: those of one
    conversation do."""
    choices: tuple[str, ...] = ()
    """The only answers that the engine may give; empty means that it may give any. Never a caller's own
    text: engines compile them."""
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    """-2 to 2 each, as in the OpenAI API."""
    logprobs: int | None = None
    """How many of the most probable tokens are told at each place, 0 to 20; None tells nothing."""
    json_schema: Json | None = None
    """What the answer has to fit, checked and bounded before; {} is any JSON object. None: any text."""
    tools: tuple[Tool, ...] = ()
    """What the answer may call, checked and bounded before."""


@dataclass(frozen=True, kw_only=True)
class ChatDelta:
    """A piece of an answer. Meanings stand at ChatResponse in the proto."""

    text: str
    model: str
    """Exactly which one answers."""
    finish_reason: FinishReason | None
    """Set in the last piece only."""
    prompt_tokens: int
    completion_tokens: int
    """Of the answer so far."""
    time_to_first_token_seconds: float
    elapsed_seconds: float
    """Both since the request's arrival."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of the piece's tokens, where they were asked for; those of calls included."""
    calls: tuple[ReadCall, ...] = ()
    """That became whole with this piece."""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """Something to ask."""

    id: str
    base_model: str
    version: VersionRow | None
    """None for a base model."""
    serving: Serving
    max_model_length: int
    """Tokens that prompt and answer together may have."""

    @property
    def available(self) -> bool:
        """Whether it would answer a request at once."""
        return self.serving is Serving.READY


def check_order(messages: Sequence[ChatMessage]) -> None:
    """At most one system message, first; then user and assistant in turn, and behind an assistant that calls
    tools what each of them gave. Raises InvalidRequest."""
    violations: list[FieldViolation] = []
    expected: tuple[str, ...] = ("system", "user")
    unanswered: set[str] = set()
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        if message.role not in expected:
            description = f"is {message.role[:20]!r} where {' or '.join(expected)} must come"
            violations.append(FieldViolation(field=f"{path}.role", description=description))
            break
        if message.role == "tool" and message.call_id not in unanswered:
            description = f"must be the id of a call before that was not answered yet: {_ids(unanswered)}"
            violations.append(FieldViolation(field=f"{path}.tool_call_id", description=description))
            break
        unanswered = (unanswered | {call.id for call in message.calls}) - {message.call_id}
        expected = _next(message.role, bool(unanswered))
    else:
        if not messages or messages[-1].role not in ("user", "tool") or unanswered:
            description = "must end with a message of the user, or with those of all tools that were called"
            violations.append(FieldViolation(field="messages", description=description))
    if violations:
        raise InvalidRequest(violations)


def _next(role: str, is_tool_waited_for: bool) -> tuple[str, ...]:
    """Roles that may come behind one of `role`."""
    if is_tool_waited_for:
        return ("tool",)
    return {"user": ("assistant",), "tool": ("assistant", "user")}.get(role, ("user",))


def _ids(unanswered: set[str]) -> str:
    return ", ".join(sorted(unanswered)[:8])
