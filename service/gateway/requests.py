"""An OpenAI chat request read by our rules: known fields with their ranges, everything else refused by name.

Refusing is kinder than ignoring: a caller who asks for tools must not get an answer without.
Ranges are those of ChatRequest in the proto. Knows no HTTP and no engine.
"""

import json
import math
from dataclasses import dataclass

from service.errors import FieldViolation, InvalidRequest
from service.gateway.formats import read_format
from service.jsonshape import Json, array, integer, mapping, number, text
from service.serving.turn import ChatMessage, ChatTurn

DEFAULT_TEMPERATURE = 1.0
"""As the OpenAI API documents it; our own API takes 0."""
MAX_TOKENS = 32_768
MAX_MESSAGES = 256
MAX_CONTENT_CHARACTERS = 200_000
MAX_STOPS = 4
MAX_STOP_CHARACTERS = 64
MAX_SEED = 2**31 - 1
MAX_KEY_CHARACTERS = 256
MAX_CHOICES = 8
MAX_TOP_LOGPROBS = 20
"""vLLM's own bound, too."""
MAX_PENALTY = 2.0

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_READ = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens"}
    | {"temperature", "top_p", "seed", "stop", "user", "safety_identifier"}
    | {"n", "frequency_penalty", "presence_penalty", "logprobs", "top_logprobs", "response_format"}
)
_IGNORED = frozenset({"metadata", "store", "prompt_cache_key"})
"""They change nothing about the answer."""
_MESSAGE_FIELDS = frozenset({"role", "content", "name"})


@dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    """What a chat request asks for."""

    turn: ChatTurn
    choices: int
    """Answers to give."""
    stream: bool
    include_usage: bool
    """Whether a stream ends with the counts."""


def read_request(body: bytes) -> CompletionRequest:
    """Read a request body. Raises InvalidRequest naming every field that is wrong."""
    try:
        fields = mapping(json.loads(body))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest([FieldViolation(field="body", description="is not a JSON object")]) from error
    reader = _Reader({name: value for name, value in fields.items() if value is not None})
    request = reader.request()
    if reader.violations:
        raise InvalidRequest(reader.violations)
    return request


class _Reader:
    """Reads field by field and collects what is wrong."""

    def __init__(self, fields: Json) -> None:
        self._fields = fields
        self.violations: list[FieldViolation] = []

    def request(self) -> CompletionRequest:
        self._refuse_unknown()
        options = self._options()
        return CompletionRequest(
            turn=ChatTurn(
                model=self._text("model", 256),
                messages=self._messages(),
                max_tokens=self._max_tokens(),
                temperature=self._number("temperature", DEFAULT_TEMPERATURE, 0, 2),
                top_p=self._number("top_p", 1.0, math.nextafter(0, 1), 1),
                seed=self._integer("seed", 0, MAX_SEED),
                stop=self._stop(),
                sticky_key=self._text("safety_identifier", MAX_KEY_CHARACTERS)
                or self._text("user", MAX_KEY_CHARACTERS),
                frequency_penalty=self._number("frequency_penalty", 0.0, -MAX_PENALTY, MAX_PENALTY),
                presence_penalty=self._number("presence_penalty", 0.0, -MAX_PENALTY, MAX_PENALTY),
                logprobs=self._logprobs(),
                json_schema=self._format(),
            ),
            choices=self._integer("n", 1, MAX_CHOICES) or 1,
            stream=self._flag(self._fields, "stream"),
            include_usage=self._flag(options, "include_usage", "stream_options."),
        )

    def _wrong(self, field: str, description: str) -> None:
        self.violations.append(FieldViolation(field=field, description=description))

    def _refuse_unknown(self) -> None:
        for name in self._fields:
            if name not in _READ | _IGNORED:
                self._wrong(name[:64], "is not supported")

    def _options(self) -> Json:
        try:
            options = mapping(self._fields.get("stream_options", {}))
        except TypeError as error:
            self._wrong("stream_options", str(error))
            return {}
        for name in options.keys() - {"include_usage", "include_obfuscation"}:
            self._wrong(f"stream_options.{name[:64]}", "is not supported")
        return options

    def _flag(self, fields: Json, name: str, prefix: str = "") -> bool:
        value = fields.get(name)
        if value is not None and not isinstance(value, bool):
            self._wrong(prefix + name, "must be true or false")
        return value is True

    def _text(self, name: str, max_characters: int) -> str:
        value = self._fields.get(name, "")
        if not isinstance(value, str) or len(value) > max_characters:
            self._wrong(name, f"must be a text of up to {max_characters} characters")
            return ""
        return value

    def _number(self, name: str, default: float, low: float, high: float) -> float:
        try:
            found = number(self._fields.get(name, default))
        except (TypeError, OverflowError):
            found = math.nan
        if not low <= found <= high:
            bound = "above 0 and" if 0 < low < 1e-300 else f"from {low}"
            self._wrong(name, f"must be a number {bound} up to {high}")
            return default
        return found

    def _integer(self, name: str, low: int, high: int) -> int | None:
        if name not in self._fields:
            return None
        try:
            found = integer(self._fields[name])
        except TypeError:
            found = low - 1
        if not low <= found <= high:
            self._wrong(name, f"must be a whole number from {low} to {high}")
            return None
        return found

    def _max_tokens(self) -> int | None:
        newer = self._integer("max_completion_tokens", 1, MAX_TOKENS)
        older = self._integer("max_tokens", 1, MAX_TOKENS)
        return older if newer is None else newer

    def _logprobs(self) -> int | None:
        wanted, top = self._flag(self._fields, "logprobs"), self._integer("top_logprobs", 0, MAX_TOP_LOGPROBS)
        if top is not None and not wanted:
            self._wrong("top_logprobs", "needs logprobs to be true")
        return (top or 0) if wanted else None

    def _format(self) -> Json | None:
        if "response_format" not in self._fields:
            return None
        schema, violations = read_format(self._fields["response_format"])
        self.violations.extend(violations)
        return schema

    def _stop(self) -> tuple[str, ...]:
        value = self._fields.get("stop", [])
        stops = [value] if isinstance(value, str) else value
        if isinstance(stops, list) and len(stops) <= MAX_STOPS:
            texts = tuple(
                each for each in stops if isinstance(each, str) and 0 < len(each) <= MAX_STOP_CHARACTERS
            )
            if len(texts) == len(stops):
                return texts
        self._wrong("stop", f"must be up to {MAX_STOPS} texts of 1 to {MAX_STOP_CHARACTERS} characters")
        return ()

    def _messages(self) -> tuple[ChatMessage, ...]:
        value = self._fields.get("messages")
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_MESSAGES:
            self._wrong("messages", f"must be a list of 1 to {MAX_MESSAGES} messages")
            return ()
        return tuple(self._message(f"messages[{index}]", each) for index, each in enumerate(value))

    def _message(self, path: str, value: object) -> ChatMessage:
        try:
            fields = mapping(value)
            for name in fields.keys() - _MESSAGE_FIELDS:
                if fields[name] is not None:
                    self._wrong(f"{path}.{name[:64]}", "is not supported")
            role, content = text(fields.get("role")), _content(fields.get("content"))
        except TypeError as error:
            self._wrong(path, f"is not a message of text: {error}")
            return ChatMessage(role="user", content="")
        if role not in _ROLES:
            self._wrong(f"{path}.role", f"must be one of {', '.join(_ROLES)}")
        if not 1 <= len(content) <= MAX_CONTENT_CHARACTERS:
            self._wrong(f"{path}.content", f"must have 1 to {MAX_CONTENT_CHARACTERS} characters")
        elif not _is_unicode(content):
            self._wrong(f"{path}.content", "has half a surrogate pair, which is no text")
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
