"""`compare`: the same question to two models at the same time, answers side by side as they come.

The sides are two independent streams; one that is slow or fails does not hold up the other.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hotlora import requests
from hotlora.aio import AsyncClient
from hotlora.command import chatting, failing, output
from hotlora.command.chatting import Asking
from hotlora.command.failing import ExitCode
from hotlora.errors import HotloraError
from hotlora.v1.chat_service_pb2 import ChatResponse

_FRAMES_PER_SECOND: Final = 12
_LINES_AROUND: Final = 6
"""Lines of the terminal that are not answer: headings, figures, the prompt below."""


@dataclass(kw_only=True)
class Side:
    """One of the two answers, as far as it has come."""

    label: str
    model: str
    text: str = ""
    latest: ChatResponse = field(default_factory=ChatResponse)
    error: HotloraError | None = None


def compare(
    address: str | None, models: tuple[str, str], *, prompt: str | None, asking: Asking, as_json: bool
) -> ExitCode:
    """Asks both. The exit code is that of the first side that failed."""
    question = prompt if prompt is not None else chatting.question_from_stdin()
    sides = [Side(label=label, model=model) for label, model in zip(("left", "right"), models, strict=True)]
    console = output.console()
    if as_json:
        asyncio.run(_ask_both(address, sides, question, asking, _print_side))
    elif console.is_terminal:
        with Live(console=console, refresh_per_second=_FRAMES_PER_SECOND, transient=True) as live:
            asyncio.run(
                _ask_both(address, sides, question, asking, lambda side: live.update(_view(sides, console)))
            )
        console.print(_view(sides, None))
    else:
        asyncio.run(_ask_both(address, sides, question, asking, lambda side: None))
        for side in sides:
            _print_plainly(side, console)
    return next((failing.code_of(side.error) for side in sides if side.error), ExitCode.OK)


async def _ask_both(
    address: str | None, sides: list[Side], question: str, asking: Asking, changed: Callable[[Side], None]
) -> None:
    async with AsyncClient(address) as client:
        for side, other in zip(sides, reversed(sides), strict=True):
            side.model = side.model or await _base_of(client, other.model)
        async with asyncio.TaskGroup() as group:
            for side in sides:
                group.create_task(_ask(client, side, question, asking, changed))


async def _base_of(client: AsyncClient, model: str) -> str:
    """The base of a model by any of its names; the default one of what nobody knows."""
    of_adapter = f"adapters/{model.partition('@')[0]}/"
    for listed in (await client.list_models()).models:
        if listed.id == model or listed.adapter_version.startswith(of_adapter):
            return listed.base_model
    return ""


async def _ask(
    client: AsyncClient, side: Side, question: str, asking: Asking, changed: Callable[[Side], None]
) -> None:
    stream = client.chat(
        asking.messages(requests.user(question)),
        model=side.model,
        max_tokens=asking.max_tokens,
        temperature=asking.temperature,
        top_p=asking.top_p,
        seed=asking.seed,
    )
    try:
        async for response in stream:
            side.text += response.delta
            side.latest = response
            changed(side)
    except HotloraError as error:
        side.error = error
        changed(side)


def _print_side(side: Side) -> None:
    """One line of JSON for what came last."""
    if side.error is not None:
        output.print_json({"side": side.label, "error": failing.as_dict(side.error)})
    else:
        output.print_json({"side": side.label, **output.as_dict(side.latest)})


def _print_plainly(side: Side, console: Console) -> None:
    """One answer after the other, for pipes and logs."""
    console.print(f"{_title(side)} ({_figures(side)})")
    console.print(output.plain(side.text))
    if side.error is not None:
        console.print(output.plain(side.error.message))
    console.print()


def _view(sides: list[Side], console: Console | None) -> RenderableType:
    """Both answers in columns; with a console, cut at the top so that the newest lines are in sight."""
    columns = Table(expand=True, show_edge=False, pad_edge=False)
    for side in sides:
        columns.add_column(_title(side), ratio=1, overflow="fold")
    columns.add_row(*(_body(side, console) for side in sides))
    columns.add_row(*(Text(_figures(side), style="dim") for side in sides))
    return columns


def _body(side: Side, console: Console | None) -> Text:
    text = Text(output.plain(side.text))
    if side.error is not None:
        text.append(f"\n{output.plain(side.error.message)}", style="red")
    if console is None:
        return text
    lines = text.wrap(console, max(console.width // 2 - 3, 1))
    return Text("\n").join(lines[-max(console.height - _LINES_AROUND, 1) :])


def _title(side: Side) -> str:
    return output.plain(side.latest.model or side.model or "base model")


def _figures(side: Side) -> str:
    if side.latest.completion_tokens:
        return chatting.figures(side.latest)
    return "failed" if side.error is not None else "waiting"
