"""The Compare tab: one input, two models, two streams that never wait for each other.

Each side answers when its count of askings changes: two listeners on one trigger would run one after the
other in the browser, those of two states run at once. What asks anew first cancels what still runs, by a
listener of its own that is registered before: Gradio cancels only after the function of the same listener,
and until then the old stream would write its history over the new question. While a cancelled answer takes
its leave the browser skips a new one; so each end of an answer looks whether one was skipped.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from hotlora.aio import AsyncClient
from hotlora.errors import HotloraError
from ui.answers import Sampling, Turn, answer, up_to_question
from ui.listening import PRIVATE, WHATEVER_STANDS, standing, toast
from ui.models import Offer
from ui.typed import whole
from ui.words import plain

type_history = list[Turn]
SIDES = ("left", "right")
STOPPED = " · stopped"


@dataclass(frozen=True, kw_only=True)
class Side:
    """The parts of one side."""

    model: gr.Dropdown
    chat: gr.Chatbot
    figures: gr.Markdown
    askings: gr.State
    """How often this side was asked; a change begins an answer."""
    begun: gr.State
    """The count of askings when the latest answer began."""
    skipped: gr.State
    """How often the browser skipped an answer; a change begins it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The parts that both sides share, in the order in which handlers take them."""

    system_prompt: gr.Textbox
    temperature: gr.Slider
    top_p: gr.Slider
    max_tokens: gr.Slider
    seed: gr.Textbox

    def parts(self) -> list[gr.components.Component]:
        """In the order of `_sampling`'s parameters."""
        return [self.system_prompt, self.temperature, self.top_p, self.max_tokens, self.seed]


def compare_tab(client: Callable[[], AsyncClient]) -> tuple[Side, Side]:
    """Lay out the tab and wire it. `client` gives the one client of the running event loop."""
    with gr.Row(elem_id="sides", equal_height=True):
        left, right = (_side(name) for name in SIDES)
    with gr.Row(elem_id="ask"):
        question = gr.Textbox(
            placeholder="Ask both models", show_label=False, lines=1, max_lines=6, scale=8, elem_id="question"
        )
        send = gr.Button("Send", variant="primary", scale=1, min_width=80, elem_id="send")
        stop = gr.Button("Stop", scale=1, min_width=80, elem_id="stop")
        retry = gr.Button("Retry", scale=1, min_width=80, elem_id="retry")
        clear = gr.Button("Clear", scale=1, min_width=80, elem_id="clear")
    settings = _settings()
    _wire(client, left, right, settings, question, (send, stop, retry, clear))
    return left, right


def picked(offer: Offer, left: str | None, right: str | None) -> tuple[str | None, str | None]:
    """What the pickers hold: the person's choice while it exists, else base left, newest adapter right."""
    known = {model_id for _, model_id in offer.choices}
    left = left if left in known else (offer.base or None)
    # The base on the right is what stands there before there is any adapter: the first one takes its place.
    keep_right = right in known and not (right == offer.base and offer.newest_active and left == offer.base)
    return left, right if keep_right else (offer.newest_active or offer.base or None)


def _side(name: str) -> Side:
    with gr.Column(min_width=320):
        model = gr.Dropdown(
            choices=[],
            label="Model",
            show_label=False,
            elem_id=f"{name}-model",
            interactive=True,
            filterable=False,
        )
        chat = gr.Chatbot(
            show_label=False,
            label=name,
            height="56vh",
            min_height=200,
            layout="panel",
            buttons=["copy"],
            elem_id=f"{name}-chat",
            placeholder="The answer appears here.",
            feedback_options=None,
        )
        figures = gr.Markdown("", elem_id=f"{name}-figures", elem_classes=["figures"])
    counts = [gr.State(0) for _ in range(3)]
    return Side(
        model=model, chat=chat, figures=figures, askings=counts[0], begun=counts[1], skipped=counts[2]
    )


def _settings() -> Settings:
    with gr.Accordion("Sampling and system prompt", open=False, elem_id="settings"):
        system_prompt = gr.Textbox(value="", label="System prompt", lines=2, elem_id="system-prompt")
        with gr.Row():
            temperature = gr.Slider(0, 2, value=0, step=0.05, label="Temperature", elem_id="temperature")
            top_p = gr.Slider(0.05, 1, value=1, step=0.05, label="Top p", elem_id="top-p")
            max_tokens = gr.Slider(1, 1024, value=256, step=1, label="Max tokens", elem_id="max-tokens")
            seed = gr.Textbox(value="", label="Seed (empty: random)", max_lines=1, elem_id="seed")
    return Settings(
        system_prompt=system_prompt, temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed
    )


def _sampling(system_prompt: str, temperature: float, top_p: float, max_tokens: float, seed: str) -> Sampling:
    return Sampling(
        system_prompt=system_prompt,
        temperature=temperature,
        top_p=top_p,
        max_tokens=int(max_tokens),
        seed=whole(seed, "seed"),
    )


def _wire(
    client: Callable[[], AsyncClient],
    left: Side,
    right: Side,
    settings: Settings,
    question: gr.Textbox,
    buttons: tuple[gr.Button, gr.Button, gr.Button, gr.Button],
) -> None:
    send, stop, retry, clear = buttons

    async def stream(
        askings: int, begun: int, model: object, history: type_history, *sampling: str | float | None
    ) -> AsyncIterator[tuple[Any, Any, Any]]:
        asked = up_to_question(history)
        if not asked or askings == begun:
            # Said, because outputs of a generator that ends without a word are emptied.
            yield gr.skip(), gr.skip(), gr.skip()
            return
        yield asked, "waiting for the first token", askings
        try:
            turns = answer(client(), standing(model) or "", asked, _sampling(*sampling))  # type: ignore[arg-type]
            async with aclosing(turns):
                async for turn in turns:
                    yield *turn, askings
        except HotloraError as error:
            yield asked, "no answer", askings
            raise toast(plain(error), seconds=10) from error

    def run(side: Side) -> Any:
        answering = gr.on(
            [side.askings.change, side.skipped.change],
            stream,
            [side.askings, side.begun, side.model, side.chat, *settings.parts()],
            [side.chat, side.figures, side.begun],
            show_progress="hidden",
            preprocess=WHATEVER_STANDS,
            api_visibility=PRIVATE,
        )
        # The answer is an output too: Gradio may have marked one that was cancelled as an error.
        answering.then(
            lambda *counts: (_skipped(*counts), gr.skip(), gr.skip()),
            [side.askings, side.begun, side.skipped],
            [side.skipped, side.chat, side.figures],
            show_progress="hidden",
            api_visibility=PRIVATE,
        )
        return answering

    runs = {side: run(side) for side in (left, right)}
    chats, figures = [left.chat, right.chat], [left.figures, right.figures]
    askings = [left.askings, right.askings]
    # What was sent, and how often: the same question twice is a change as well. An empty one changes nothing,
    # and so leaves a running answer alone.
    sent = gr.State(("", 0))
    gr.on(
        [question.submit, send.click],
        _send,
        [question, sent],
        [question, sent],
        show_progress="hidden",
        api_visibility=PRIVATE,
    )
    everything = list(runs.values())
    _stopping(sent.change, everything, _ask, [sent, *chats, *askings], [*chats, *askings])
    _stopping(retry.click, everything, _ask_again, [*chats, *askings], [*chats, *askings])
    for side in (left, right):
        both = [side.chat, side.askings]
        _stopping(side.chat.retry, [runs[side]], _ask_side_again, both, both)
    _stopping(stop.click, everything, _mark_stopped, figures, figures)
    _stopping(clear.click, everything, lambda: ([], [], "", ""), [], [*chats, *figures])


def _stopping(
    trigger: Any,
    runs: Sequence[Any],
    then: Callable[..., Any],
    inputs: Sequence[gr.components.Component],
    outputs: Sequence[gr.components.Component],
) -> None:
    """Stop the answers of `runs` whenever `trigger` fires, and only then call `then`."""
    gr.on(trigger, None, cancels=list(runs), api_visibility=PRIVATE)
    gr.on(trigger, then, list(inputs), list(outputs), show_progress="hidden", api_visibility=PRIVATE)


def _send(question: str, sent: tuple[str, int]) -> tuple[str, tuple[str, int]]:
    if not question.strip():
        raise toast("Type a question first.", seconds=5)
    return "", (question, sent[1] + 1)


type_asked = tuple[type_history, type_history, int, int]


def _ask(sent: tuple[str, int], left: type_history, right: type_history, *askings: int) -> type_asked:
    turn = Turn(role="user", content=sent[0])
    return [*_answered(left), turn], [*_answered(right), turn], askings[0] + 1, askings[1] + 1


def _skipped(askings: int, begun: int, skipped: int) -> Any:
    """The count of skipped answers, one more where the latest asking has not begun."""
    return gr.skip() if askings == begun else skipped + 1


def _answered(history: type_history) -> type_history:
    """The conversation without a last question that never got an answer: roles must alternate."""
    return history[:-1] if history and history[-1]["role"] == "user" else history


def _ask_again(left: type_history, right: type_history, *askings: int) -> type_asked:
    if not up_to_question(left) and not up_to_question(right):
        raise toast("There is nothing to ask again yet.", seconds=5)
    return up_to_question(left), up_to_question(right), askings[0] + 1, askings[1] + 1


def _ask_side_again(history: type_history, askings: int) -> tuple[type_history, int]:
    return up_to_question(history), askings + 1


def _mark_stopped(left: str, right: str) -> tuple[str, str]:
    def mark(line: str) -> str:
        return line if not line or line.endswith(STOPPED) else line + STOPPED

    return mark(left), mark(right)
