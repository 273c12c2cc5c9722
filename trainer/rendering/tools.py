"""Tools: how a template shows calls and their results, and how calls are read out of an answer.

Each model family writes calls in a way of its own, and its template shows that way. So a template is not
asked for its family: whichever reader reads back the call that the template wrote is the right one. Offers no
tools and calls none.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from trainer.records import Turn
from trainer.rendering.template import ChatTemplate, RenderingError, ToolTurn, WrittenCall

NO_TOOLS = "the base model's chat template takes no tools"
UNKNOWN_CALLS = (
    "the base model's chat template takes tools, but writes their calls in a way that is not read here; "
    "<tool_call> with JSON (Hermes, Qwen 2.5 and 3) and bare JSON (Llama 3) would be"
)

_QUESTION = Turn(role="user", content="a")
_TOOL: Mapping[str, object] = {
    "type": "function",
    "function": {
        "name": "hotlora_probe",
        "description": "Probes.",
        "parameters": {"type": "object", "properties": {"probe": {"type": "string"}}},
    },
}
_CALL = WrittenCall(id="hotlora00", name="hotlora_probe", arguments={"probe": "x"})
_RESULT = "hotlora-result"


@dataclass(frozen=True, kw_only=True)
class ReadCall:
    """A call that stands in an answer."""

    name: str
    arguments: str
    """A JSON object."""


class CallReader(Protocol):
    """Takes the calls out of one answer. Gives text as soon as it can be no part of a call; what looks like a
    call and is none, or calls a tool that was not offered, is text."""

    def feed(self, text: str) -> tuple[str, list[ReadCall]]:
        """A piece of the answer; what is text and which calls are whole by now."""

    def finish(self, *, is_whole: bool) -> tuple[str, list[ReadCall]]:
        """The answer ended, by itself or not; the rest of it."""


class TaggedReader:
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, any number of times, and text before."""

    _OPEN, _CLOSE = "<tool_call>", "</tool_call>"

    def __init__(self, offered: Collection[str]) -> None:
        self._offered = offered
        self._held = ""
        self._looked = 0
        """Characters of it that no closing tag begins in."""
        self._in_call = False
        self._called = False

    def feed(self, text: str) -> tuple[str, list[ReadCall]]:
        self._held += text
        texts: list[str] = []
        calls: list[ReadCall] = []
        while (self._close if self._in_call else self._open)(texts, calls):
            pass
        return "".join(texts), calls

    def finish(self, *, is_whole: bool) -> tuple[str, list[ReadCall]]:
        rest, self._held = self._held, ""
        if self._in_call:
            # Some models end their turn in the place of the closing tag.
            call = _call(rest, "arguments", self._offered) if is_whole else None
            return ("", [call]) if call else (self._OPEN + rest, [])
        return ("" if self._called and not rest.strip() else rest), []

    def _open(self, texts: list[str], _: list[ReadCall]) -> bool:
        """Give what stands before the next call; whether there is one."""
        before, tag, after = self._held.partition(self._OPEN)
        if tag:
            texts.append(before.rstrip())
            self._held, self._looked, self._in_call = after, 0, True
            return True
        given = len(before) - _beginning(before, self._OPEN)
        # White space in front of a call belongs to the call.
        given = len(before[:given].rstrip())
        texts.append(before[:given])
        self._held = before[given:]
        return False

    def _close(self, texts: list[str], calls: list[ReadCall]) -> bool:
        """Take the call that is begun; whether it is whole."""
        end = self._held.find(self._CLOSE, self._looked)
        if end < 0:
            self._looked = max(0, len(self._held) - len(self._CLOSE))
            return False
        inner = self._held[:end]
        self._held = self._held[end + len(self._CLOSE) :]
        self._in_call = False
        call = _call(inner, "arguments", self._offered)
        if call:
            calls.append(call)
            self._called = True
        else:
            texts.append(self._OPEN + inner + self._CLOSE)
        return True


class BareReader:
    """An answer that is one `{"name": ..., "parameters": {...}}` and nothing else."""

    def __init__(self, offered: Collection[str]) -> None:
        self._offered = offered
        self._held: list[str] = []
        self._may_be_call: bool | None = None
        """None: nothing but white space came yet."""

    def feed(self, text: str) -> tuple[str, list[ReadCall]]:
        self._held.append(text)
        if self._may_be_call is None and text.strip():
            self._may_be_call = text.lstrip().startswith("{")
        return (self._rest() if self._may_be_call is False else ""), []

    def finish(self, *, is_whole: bool) -> tuple[str, list[ReadCall]]:
        rest = self._rest()
        call = _call(rest, "parameters", self._offered) if is_whole else None
        return ("", [call]) if call else (rest, [])

    def _rest(self) -> str:
        rest = "".join(self._held)
        self._held.clear()
        return rest


AnyReader = type[TaggedReader] | type[BareReader]
_READERS: tuple[AnyReader, ...] = (TaggedReader, BareReader)


def reader_for(template: ChatTemplate, turn_end: str) -> AnyReader:
    """What reads the calls that `template` writes; `turn_end` is what it writes behind an answer.

    Raises RenderingError saying why tools cannot be offered by this template.
    """
    try:
        asked = template.render([_QUESTION], tools=[_TOOL], generation_prompt=True)
        if asked == template.render([_QUESTION], generation_prompt=True):
            raise RenderingError(NO_TOOLS)
        calling = ToolTurn(role="assistant", content="", calls=(_CALL,))
        told = template.render([_QUESTION, calling], tools=[_TOOL], generation_prompt=False)
        result = ToolTurn(role="tool", content=_RESULT, call_id=_CALL.id)
        ended = template.render([_QUESTION, calling, result], tools=[_TOOL], generation_prompt=True)
    except RenderingError as error:
        raise error if str(error) == NO_TOOLS else RenderingError(UNKNOWN_CALLS) from error
    wanted = [ReadCall(name=_CALL.name, arguments=json.dumps(_CALL.arguments))]
    if told.startswith(asked) and _RESULT in ended:
        answer = told[len(asked) :].removesuffix(turn_end)
        for reader in _READERS:
            if _calls_in(reader, answer) == wanted:
                return reader
    raise RenderingError(UNKNOWN_CALLS)


def _calls_in(reader: AnyReader, answer: str) -> list[ReadCall]:
    reading = reader({_CALL.name})
    return [*reading.feed(answer)[1], *reading.finish(is_whole=True)[1]]


def _call(text: str, key: str, offered: Collection[str]) -> ReadCall | None:
    """The call that `text` is, its arguments under `key`; None where it is none."""
    try:
        fields = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get(key), dict):
        return None
    name = fields.get("name")
    if not isinstance(name, str) or name not in offered:
        return None
    return ReadCall(name=name, arguments=json.dumps(fields[key]))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _beginning(text: str, tag: str) -> int:
    """How many of the last characters of `text` a `tag` may begin with."""
    return next((size for size in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:size])), 0)
