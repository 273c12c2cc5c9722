"""What every listener of the page has in common: it is no API, and its errors are toasts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gradio as gr
from gradio.blocks import Block

from hotlora.errors import HotloraError
from ui.words import plain

PRIVATE = "private"
"""Visibility of listeners: Gradio would offer each as an endpoint to programs, which have the service."""
WHATEVER_STANDS = False
"""`preprocess` of listeners that read pickers whose choices come from the service. Gradio would refuse a
value that is not among the choices it sent to this browser's session. Those are gone once the page was
restarted or the browser's machine slept for an hour, and the listener that sends them anew would be refused
for good. `standing` makes what they get a name or nothing; the service judges it."""

Parts = set[Block]
"""Of a form: where a listener takes a set, what stands in them comes by part."""
Given = Mapping[gr.components.Component, object]
"""What stands in the parts of a form."""


def standing(value: object) -> str | None:
    """What stands in a picker, as it came from the browser; None where nothing is chosen."""
    return value if isinstance(value, str) else None


def still_there(value: object, offered: Sequence[str]) -> str | None:
    """What stands in a picker while it is offered, else the first that is; None where nothing is."""
    return next((each for each in offered if each == value), next(iter(offered), None))


def keep_up(
    events: Sequence[Callable[..., Any]],
    refresh: Callable[..., Any],
    inputs: Sequence[Block],
    outputs: Sequence[Block],
) -> None:
    """Have `refresh` keep the outputs up at each of the events, unseen."""
    for happens in events:
        happens(
            refresh,
            inputs,
            outputs,
            show_progress="hidden",
            preprocess=WHATEVER_STANDS,
            api_visibility=PRIVATE,
        )


def text_in(given: Given, part: gr.components.Component) -> str:
    """What stands in a part, without spaces around it; empty where nothing does."""
    return str(given[part] or "").strip()


def toast(words: str, *, seconds: float = 15) -> gr.Error:
    """An error to be raised: plain words that go away by themselves, and nothing in the log."""
    return gr.Error(words, duration=seconds, print_exception=False)


@contextmanager
def told() -> Iterator[None]:
    """What is refused within the block is told in a toast."""
    try:
        yield
    except HotloraError as error:
        raise toast(plain(error)) from error
