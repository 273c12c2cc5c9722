"""The Compare tab: one input, two models, two streams that never wait for each other.

Both sides hang on `.success` of the same first event: two listeners on one trigger would run one after the
other in the browser, two successors run at once.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from hotlora.aio import AsyncClient
from hotlora.errors import HotloraError
from ui.answers import Sampling, Turn, answer, up_to_question
from ui.listening import PRIVATE, toast
from ui.models import Offer
from ui.numbers import NotANumberError, whole
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
    return Side(model=model, chat=chat, figures=figures)


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
        seed=whole(seed, "Seed"),
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
        model: str | None, history: type_history, *sampling: str | float | None
    ) -> AsyncIterator[tuple[type_history, str]]:
        asked = up_to_question(history)
        if not asked:
            return
        yield asked, "waiting for the first token"
        try:
            turns = answer(client(), model or "", asked, _sampling(*sampling))  # type: ignore[arg-type]
            async with aclosing(turns):
                async for turn in turns:
                    yield turn
        except (NotANumberError, HotloraError) as error:
            yield asked, "no answer"
            words = plain(error) if isinstance(error, HotloraError) else str(error)
            raise toast(words, seconds=10) from error

    def run(after: Any, side: Side) -> Any:
        return after.success(
            stream,
            [side.model, side.chat, *settings.parts()],
            [side.chat, side.figures],
            show_progress="hidden",
            api_visibility=PRIVATE,
        )

    asked = gr.on(
        [question.submit, send.click],
        _ask,
        [question, left.chat, right.chat],
        [question, left.chat, right.chat],
        show_progress="hidden",
        api_visibility=PRIVATE,
    )
    again = retry.click(
        _ask_again,
        [left.chat, right.chat],
        [left.chat, right.chat],
        show_progress="hidden",
        api_visibility=PRIVATE,
    )
    runs: list[Any] = [run(after, side) for after in (asked, again) for side in (left, right)]
    for side in (left, right):
        cut = side.chat.retry(
            up_to_question, side.chat, side.chat, show_progress="hidden", api_visibility=PRIVATE
        )
        runs.append(run(cut, side))
    figures = [left.figures, right.figures]
    stop.click(_mark_stopped, figures, figures, cancels=runs, show_progress="hidden", api_visibility=PRIVATE)
    clear.click(
        lambda: ([], [], "", ""),
        None,
        [left.chat, right.chat, *figures],
        cancels=runs,
        show_progress="hidden",
        api_visibility=PRIVATE,
    )


def _ask(question: str, left: type_history, right: type_history) -> tuple[str, type_history, type_history]:
    if not question.strip():
        raise toast("Type a question first.", seconds=5)
    turn = Turn(role="user", content=question)
    return "", [*_answered(left), turn], [*_answered(right), turn]


def _answered(history: type_history) -> type_history:
    """The conversation without a last question that never got an answer: roles must alternate."""
    return history[:-1] if history and history[-1]["role"] == "user" else history


def _ask_again(left: type_history, right: type_history) -> tuple[type_history, type_history]:
    if not up_to_question(left) and not up_to_question(right):
        raise toast("There is nothing to ask again yet.", seconds=5)
    return up_to_question(left), up_to_question(right)


def _mark_stopped(left: str, right: str) -> tuple[str, str]:
    def mark(line: str) -> str:
        return line if not line or line.endswith(STOPPED) else line + STOPPED

    return mark(left), mark(right)
