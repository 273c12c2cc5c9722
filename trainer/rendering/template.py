"""A chat template, compiled in a sandbox: messages to text.

It does not know tokens. The sandbox keeps a template from Python's insides; the bounds on text and time keep
it from filling memory or hanging a server.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

_MAX_CHARACTERS = 32 * 1024 * 1024
"""A row of 1 MiB of JSON, a default system text and markup stay far below."""
_MAX_SECONDS = 20.0

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\\n' }}"
    "{% else %}{{ 'Assistant: ' + message['content'] + eos_token|default('') + '\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""For a base without a template of its own: plain words and the base's own end token. The prompt ends without
a space, because most tokenizers glue a space to the word that follows."""


class RenderingError(Exception):
    """A base whose files do not make a renderer, or a conversation that its template does not take."""


class Spoken(Protocol):
    """What the template sees of a message."""

    @property
    def role(self) -> str: ...
    @property
    def content(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class WrittenCall:
    """A call that the assistant made."""

    id: str
    name: str
    arguments: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class ToolTurn:
    """A message that calls tools, or tells what one of them gave."""

    role: str
    """assistant or tool."""
    content: str
    calls: tuple[WrittenCall, ...] = ()
    call_id: str = ""
    """Of the call that a tool answers."""


Tool = Mapping[str, object]
"""As the OpenAI API has it: {"type": "function", "function": {"name", "description", "parameters"}}."""


class ChatTemplate:
    """A compiled template. Raises RenderingError when its source does not compile."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], now: Callable[[], datetime]) -> None:
        self.source = source
        self._special_tokens = dict(special_tokens)
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda layout: now().strftime(layout)
        try:
            self._compiled = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise RenderingError(
                f"the chat template does not compile: line {error.lineno}: {error}"
            ) from error

    def render(
        self, messages: Sequence[Spoken], *, generation_prompt: bool, tools: Sequence[Tool] = ()
    ) -> str:
        """The text of a conversation in which `tools` may be called. Raises RenderingError with the
        template's own words when it refuses."""
        pieces: list[str] = []
        characters = 0
        deadline = time.monotonic() + _MAX_SECONDS
        try:
            for piece in self._compiled.generate(
                messages=[_shown(message) for message in messages],
                tools=list(tools) or None,
                documents=None,
                add_generation_prompt=generation_prompt,
                **self._special_tokens,
            ):
                pieces.append(piece)
                characters += len(piece)
                if characters > _MAX_CHARACTERS or time.monotonic() > deadline:
                    raise RenderingError("the chat template writes too much or takes too long")
        except RenderingError:
            raise
        except Exception as error:  # a template is a program: it can fail in any way Python can
            raise RenderingError(f"the chat template refused the conversation: {error}") from error
        return "".join(pieces)


class _GenerationTag(Extension):
    """`{% generation %}`, with which some templates mark the assistant's words; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_pass"), [], [], body).set_lineno(line)

    def _pass(self, caller: Callable[[], str]) -> str:
        return caller()


def _shown(message: Spoken) -> dict[str, object]:
    shown: dict[str, object] = {"role": message.role, "content": message.content}
    if isinstance(message, ToolTurn):
        if message.call_id:
            shown["tool_call_id"] = message.call_id
        if message.calls:
            shown["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": dict(call.arguments)},
                }
                for call in message.calls
            ]
    return shown


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own filter escapes for HTML.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
