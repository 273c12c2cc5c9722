"""`chat`: one question from an option or stdin, or a conversation at the terminal."""

import sys
from dataclasses import dataclass

from rich.console import Console

from hotlora import requests
from hotlora.client import Client
from hotlora.command import failing, output
from hotlora.command.calling import connected
from hotlora.errors import HotloraError, InvalidArgument
from hotlora.v1.chat_service_pb2 import ChatResponse
from hotlora.v1.resources_pb2 import Message


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How to ask; None leaves the service's default."""

    system: str | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None

    def messages(self, *turns: Message) -> list[Message]:
        """The conversation, begun by the system message where there is one."""
        return [*([requests.system(self.system)] if self.system else []), *turns]


def chat(address: str | None, model: str, *, prompt: str | None, asking: Asking, as_json: bool) -> None:
    """Answers the prompt, or talks with whoever is at the terminal until end of input."""
    with connected(address) as client:
        if prompt is not None or not sys.stdin.isatty():
            text = prompt if prompt is not None else question_from_stdin()
            _answer(client, model, asking.messages(requests.user(text)), asking, as_json=as_json)
        else:
            _converse(client, model, asking, as_json=as_json)


def question_from_stdin() -> str:
    """A line from the terminal, else all of stdin. Raises InvalidArgument when it is empty or no text."""
    try:
        text = input("> ") if sys.stdin.isatty() else sys.stdin.read()
        text.encode()
    except EOFError:
        text = ""
    except UnicodeError:
        raise InvalidArgument("stdin is not UTF-8 text.", reason="NOT_UTF_8") from None
    if not text.strip():
        raise InvalidArgument("There is nothing to ask; give --prompt TEXT or text on stdin.", reason="EMPTY")
    return text.strip()


def figures(response: ChatResponse) -> str:
    """What an answer cost, from any of its messages."""
    after_first = response.elapsed_seconds - response.time_to_first_token_seconds
    # The first token is what the time to first token measured; the rate is that of the others.
    rate = (response.completion_tokens - 1) / after_first if after_first > 0 else 0.0
    parts = [
        f"{response.completion_tokens} tokens",
        f"first after {response.time_to_first_token_seconds:.2f} s",
    ]
    return " · ".join([*parts, f"{rate:.0f} tok/s"] if rate > 0 else parts)


def _converse(client: Client, model: str, asking: Asking, *, as_json: bool) -> None:
    """Question and answer in turn. A question that failed is forgotten, so that it can be asked anew."""
    turns: list[Message] = []
    output.console().print("Ctrl-D ends the conversation.", style="dim")
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            print()
            return
        if not text:
            continue
        turns.append(requests.user(text))
        try:
            answer = _answer(client, model, asking.messages(*turns), asking, as_json=as_json)
            turns.append(requests.assistant(answer or " "))
        except HotloraError as error:
            failing.report(error, as_json=as_json)
            turns.pop()


def _answer(client: Client, model: str, messages: list[Message], asking: Asking, *, as_json: bool) -> str:
    """Prints an answer as it comes, and returns it."""
    answer: list[str] = []
    response = ChatResponse()
    stream = client.chat(
        messages,
        model=model,
        max_tokens=asking.max_tokens,
        temperature=asking.temperature,
        top_p=asking.top_p,
        seed=asking.seed,
    )
    for response in stream:
        answer.append(response.delta)
        if as_json:
            output.print_json(response)
        else:
            print(output.plain(response.delta), end="", flush=True)
    if not as_json:
        print()
        Console(stderr=True, highlight=False, markup=False).print(
            f"{response.model} · {figures(response)}", style="dim"
        )
    return "".join(answer)
