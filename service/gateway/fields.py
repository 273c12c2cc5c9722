"""The fields that OpenAI's requests for answers share, read by our rules: each with its range, everything
else refused by name.

Refusing is kinder than ignoring: a caller who asks for tools must not get an answer without. Ranges are those
of ChatRequest in the proto. Knows no HTTP and no engine.
"""

import json
import math
from dataclasses import dataclass, replace

from service.errors import FieldViolation, InvalidRequest
from service.jsonshape import Json, given, integer, is_unicode, mapping, number
from service.serving.turn import ChatTurn

DEFAULT_TEMPERATURE = 1.0
"""As the OpenAI API documents it; our own API takes 0."""
MAX_STOPS = 4
MAX_STOP_CHARACTERS = 64
MAX_SEED = 2**31 - 1
MAX_KEY_CHARACTERS = 256
MAX_CHOICES = 8
MAX_PENALTY = 2.0

SHARED = frozenset(
    {"model", "stream", "stream_options", "temperature", "top_p", "seed", "stop", "n"}
    | {"user", "safety_identifier", "frequency_penalty", "presence_penalty"}
)
_IGNORED = frozenset({"metadata", "store", "prompt_cache_key"})
"""They change nothing about the answer."""
_ABOVE_ZERO = math.nextafter(0, 1)


@dataclass(frozen=True, kw_only=True)
class AnswersRequest:
    """What a request asks for."""

    turn: ChatTurn
    choices: int
    """Answers to give."""
    stream: bool
    include_usage: bool
    """Whether a stream ends with the counts."""


class Fields:
    """Reads field by field and collects what is wrong."""

    def __init__(self, body: bytes, *, known: frozenset[str]) -> None:
        """Fields that are null count as not given. Raises InvalidRequest where `body` is no JSON object."""
        try:
            self.given = given(json.loads(body))
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidRequest(
                [FieldViolation(field="body", description="is not a JSON object")]
            ) from error
        self.violations = [
            FieldViolation(field=name[:64], description="is not supported")
            for name in self.given
            if name not in known | SHARED | _IGNORED
        ]

    def request(self, turn: ChatTurn) -> AnswersRequest:
        """`turn` with what all kinds of requests have in common.

        Raises InvalidRequest naming every field that was wrong, here or before.
        """
        options = self.options()
        request = AnswersRequest(
            turn=replace(
                turn,
                model=self.text("model", 256),
                temperature=self.number("temperature", DEFAULT_TEMPERATURE, 0, 2),
                top_p=self.number("top_p", 1.0, _ABOVE_ZERO, 1),
                seed=self.integer("seed", 0, MAX_SEED),
                stop=self.stop(),
                sticky_key=self.text("safety_identifier", MAX_KEY_CHARACTERS)
                or self.text("user", MAX_KEY_CHARACTERS),
                frequency_penalty=self.number("frequency_penalty", 0.0, -MAX_PENALTY, MAX_PENALTY),
                presence_penalty=self.number("presence_penalty", 0.0, -MAX_PENALTY, MAX_PENALTY),
            ),
            choices=self.integer("n", 1, MAX_CHOICES) or 1,
            stream=self.flag(self.given, "stream"),
            include_usage=self.flag(options, "include_usage", "stream_options."),
        )
        if self.violations:
            raise InvalidRequest(self.violations)
        return request

    def wrong(self, field: str, description: str) -> None:
        """Something is wrong with `field`."""
        self.violations.append(FieldViolation(field=field, description=description))

    def options(self) -> Json:
        """Those of a stream."""
        try:
            options = mapping(self.given.get("stream_options", {}))
        except TypeError as error:
            self.wrong("stream_options", str(error))
            return {}
        for name in options.keys() - {"include_usage", "include_obfuscation"}:
            self.wrong(f"stream_options.{name[:64]}", "is not supported")
        return options

    def flag(self, fields: Json, name: str, prefix: str = "") -> bool:
        """True or false; false where it is not given."""
        value = fields.get(name)
        if value is not None and not isinstance(value, bool):
            self.wrong(prefix + name, "must be true or false")
        return value is True

    def text(self, name: str, max_characters: int) -> str:
        """Empty where it is not given."""
        value = self.given.get(name, "")
        if not isinstance(value, str) or len(value) > max_characters or not is_unicode(value):
            self.wrong(name, f"must be a text of up to {max_characters} characters")
            return ""
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """From `low` to `high`, both included."""
        try:
            found = number(self.given.get(name, default))
        except (TypeError, OverflowError):
            found = math.nan
        if not low <= found <= high:
            bound = "above 0 and" if low == _ABOVE_ZERO else f"from {low}"
            self.wrong(name, f"must be a number {bound} up to {high}")
            return default
        return found

    def integer(self, name: str, low: int, high: int) -> int | None:
        """From `low` to `high`, both included; None where it is not given."""
        if name not in self.given:
            return None
        try:
            found = integer(self.given[name])
        except TypeError:
            found = low - 1
        if not low <= found <= high:
            self.wrong(name, f"must be a whole number from {low} to {high}")
            return None
        return found

    def stop(self) -> tuple[str, ...]:
        """What ends an answer."""
        value = self.given.get("stop", [])
        stops = [value] if isinstance(value, str) else value
        if isinstance(stops, list) and len(stops) <= MAX_STOPS:
            texts = tuple(
                each for each in stops if isinstance(each, str) and 0 < len(each) <= MAX_STOP_CHARACTERS
            )
            if len(texts) == len(stops):
                return texts
        self.wrong("stop", f"must be up to {MAX_STOPS} texts of 1 to {MAX_STOP_CHARACTERS} characters")
        return ()
