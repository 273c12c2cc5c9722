"""The page: three tabs over one client of the service."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import gradio as gr

from hotlora.aio import AsyncClient
from hotlora.errors import HotloraError
from ui.board import Board
from ui.compare import compare_tab, picked
from ui.listening import keep_up, standing
from ui.models import Offer, offer, unreachable
from ui.reports import reports_tab
from ui.training import training_tab
from ui.words import plain

MODELS_REFRESH_SECONDS = 2.0
CACHE_SECONDS = 3600
"""Uploaded files are copied to the service at once; what the page kept of them goes after an hour."""

CSS = (Path(__file__).parent / "page.css").read_text()


def build(address: str) -> gr.Blocks:
    """The page for the service at `address` ("host:port"), which is first asked when a browser comes."""

    @cache
    def client() -> AsyncClient:
        # Made on first use: a gRPC channel belongs to the event loop in which it is made.
        return AsyncClient(address)

    @cache
    def board() -> Board:
        return Board(client())

    page = gr.Blocks(
        title="Hotlora", analytics_enabled=False, fill_width=True, delete_cache=(CACHE_SECONDS, CACHE_SECONDS)
    )
    with page:
        with gr.Row(elem_id="top"):
            gr.Markdown("## Hotlora", elem_id="name")
            engine = gr.Markdown("", elem_id="engine")
        with gr.Tab("Compare", id="compare"):
            left, right = compare_tab(client)
        with gr.Tab("Training", id="training"):
            training_tab(client, board)
        with gr.Tab("Reports", id="reports"):
            reports_tab(client)
        shown = gr.State(None)
        models = [left.model, right.model, shown]
        outputs = [left.model, right.model, engine, shown]
        keep_up([page.load, gr.Timer(MODELS_REFRESH_SECONDS).tick], _refresh(client), models, outputs)
    page.queue(default_concurrency_limit=64)
    return page


Refreshed = tuple[object, object, object, object]


def _refresh(client: Callable[[], AsyncClient]) -> Callable[..., object]:
    async def refresh(left: object, right: object, shown: Offer | None) -> Refreshed:
        try:
            now = offer(await client().list_models())
        except HotloraError as error:
            now = unreachable(plain(error))
        if now == shown:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        if not now.choices:
            return gr.skip(), gr.skip(), now.engine, now
        left_model, right_model = picked(now, standing(left), standing(right))
        choices = list(now.choices)
        return (
            gr.Dropdown(choices=choices, value=left_model),
            gr.Dropdown(choices=choices, value=right_model),
            now.engine,
            now,
        )

    return refresh
