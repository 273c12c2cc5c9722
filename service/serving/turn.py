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

DEFAULT_MAX_TOKENS = 256


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"


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
    """system, user or assistant."""
    content: str


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
    """Of the piece's tokens, where they were asked for."""


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
    """At most one system message, first; then user and assistant in turn. Raises
    InvalidRequest."""
    violations: list[FieldViolation] = []
    expected: tuple[str, ...] = ("system", "user")
    for index, message in enumerate(messages):
        if message.role not in expected:
            description = f"is {message.role[:20]!r} where {' or '.join(expected)} must come"
            violations.append(FieldViolation(field=f"messages[{index}].role", description=description))
            break
        expected = ("assistant",) if message.role == "user" else ("user",)
    else:
        if not messages or messages[-1].role != "user":
            violations.append(
                FieldViolation(field="messages", description="must end with a message of the user")
            )
    if violations:
        raise InvalidRequest(violations)
