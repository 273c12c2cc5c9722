"""The Training tab: look at a file, plan and start a training from it, follow every job."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from hotlora.aio import AsyncClient
from ui.board import Board
from ui.findings import findings
from ui.jobs import jobs_panel
from ui.listening import PRIVATE, Given, told
from ui.order import Order
from ui.order_form import order_form
from ui.plan import plan_panel
from ui.words import about


def training_tab(client: Callable[[], AsyncClient], board: Callable[[], Board]) -> None:
    """Lay out the tab and wire it. Both arguments give what belongs to the running event loop."""
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            order, found = order_form(client)
            plan_panel(client, order)
            start = gr.Button("Start training", variant="primary", elem_id="start-training")
        with gr.Column(scale=3, min_width=320):
            started = jobs_panel(client, board)
    _look_at_files(client, order, found)
    start.click(
        _begin(client, order), order.parts(), started, api_visibility=PRIVATE, show_progress="minimal"
    )


def _look_at_files(client: Callable[[], AsyncClient], order: Order, found: gr.HTML) -> None:
    """Look anew whenever the file changes, or how it is to be read."""
    seen = gr.State(None)
    source, reading = order.source, order.reading

    async def look(given: Given) -> tuple[Any, Any]:
        with told():
            chosen = source.read(given)
            if chosen is None:
                return "", None
            wishes = order.wishes_in(given, [chosen])
            now = (chosen, wishes.SerializeToString(deterministic=True))
            if now == given[seen]:
                return gr.skip(), gr.skip()
            return findings(await chosen.look(client(), wishes)), now

    gr.on(
        [
            source.file.change,
            source.name.change,
            reading.format.change,
            reading.task.change,
            reading.mapping.blur,
            reading.bad_rows.change,
            order.base_model.change,
        ],
        look,
        {*source.parts(), *reading.parts(), order.base_model, seen},
        [found, seen],
        trigger_mode="always_last",
        api_visibility=PRIVATE,
        show_progress="minimal",
    )


def _begin(client: Callable[[], AsyncClient], order: Order) -> Callable[..., Any]:
    async def begin(given: Given) -> str:
        with told():
            job, dataset = await order.place(client(), given)
        adapter = job.adapter.removeprefix("adapters/")
        gr.Info(f"Training of {adapter} on {dataset.rows:,} rows is queued.")
        for warning in job.warnings:
            gr.Warning(about(warning.field, warning.description))
        return job.name

    return begin
