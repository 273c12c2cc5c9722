"""The Training tab: start a training from a file, follow every job, see its loss, cancel it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from hotlora.aio import AsyncClient
from hotlora.errors import HotloraError
from hotlora.v1.tuning_service_pb2 import TECHNIQUE_LORA, TECHNIQUE_QLORA, Hyperparameters
from ui.board import FINISHED, Board
from ui.cards import cards, title
from ui.words import plain

PRIVATE = "private"
REFRESH_SECONDS = 1.0
TECHNIQUES = {"LoRA": TECHNIQUE_LORA, "QLoRA": TECHNIQUE_QLORA}


def training_tab(client: Callable[[], AsyncClient], board: Callable[[], Board]) -> None:
    """Lay out the tab and wire it. Both arguments give what belongs to the running event loop."""
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            form = _form()
            start = gr.Button("Start training", variant="primary", elem_id="start-training")
        with gr.Column(scale=3, min_width=320):
            listing = gr.HTML(cards([]), elem_id="jobs")
            with gr.Row():
                job = gr.Dropdown(
                    choices=[], label="Job", elem_id="job", interactive=True, filterable=False, scale=4
                )
                cancel = gr.Button("Cancel job", scale=1, min_width=100, elem_id="cancel-job")
            plot = gr.LinePlot(
                x="step",
                y="loss",
                color="kind",
                x_title="step",
                y_title="loss (nats per token)",
                height=260,
                elem_id="loss",
                show_label=False,
            )
    seen = gr.State(("", ()))

    async def begin(
        path: str | None,
        adapter_id: str,
        technique: str,
        rank: float | None,
        learning_rate: float | None,
        epochs: float | None,
    ) -> Any:
        if not path:
            raise gr.Error("Choose a file of examples first.", duration=5, print_exception=False)
        settings = Hyperparameters()
        if rank is not None:
            settings.rank = int(rank)
        if learning_rate is not None:
            settings.learning_rate = learning_rate
        if epochs is not None:
            settings.epochs = int(epochs)
        try:
            dataset = await client().upload_dataset(Path(path), display_name=Path(path).name[:200])
            created = await client().create_tuning_job(
                dataset=dataset.name,
                adapter_id=adapter_id.strip(),
                technique=TECHNIQUES[technique],
                hyperparameters=settings,
            )
        except HotloraError as error:
            raise gr.Error(plain(error), duration=15, print_exception=False) from error
        gr.Info(f"Training of {adapter_id} on {dataset.rows} rows is queued.")
        return gr.Dropdown(choices=[(title(created), created.name)], value=created.name)

    async def refresh(chosen: str | None, before: tuple[str, tuple[Any, ...]]) -> Any:
        try:
            jobs = await board().jobs()
        except HotloraError:
            return gr.skip(), gr.skip(), gr.skip(), before
        choices = [(title(found), found.name) for found in jobs]
        names = [name for _, name in choices]
        value = chosen if chosen in names else (names[0] if names else None)
        points = board().curve(value) if value else []
        now = (cards(jobs), (tuple(choices), value, len(points), points[-1:] and points[-1].step))
        if now == before:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        # An empty frame would fix the kind column as numbers, and the legend with it.
        curve = _frame(points) if points else None
        return now[0], gr.Dropdown(choices=choices, value=value), curve, now

    async def stop(chosen: str | None) -> None:
        if not chosen:
            raise gr.Error("Choose a job first.", duration=5, print_exception=False)
        try:
            cancelled = await client().cancel_tuning_job(chosen)
        except HotloraError as error:
            raise gr.Error(plain(error), duration=10, print_exception=False) from error
        if cancelled.state not in FINISHED:
            gr.Info("The job is asked to stop; it ends within 5 seconds.")

    start.click(begin, form, job, api_visibility=PRIVATE, show_progress="minimal")
    cancel.click(stop, job, None, api_visibility=PRIVATE)
    gr.Timer(REFRESH_SECONDS).tick(
        refresh, [job, seen], [listing, job, plot, seen], show_progress="hidden", api_visibility=PRIVATE
    )


def _form() -> list[gr.components.Component]:
    """In the order of `begin`'s parameters."""
    upload = gr.File(label="Examples (JSON Lines)", type="filepath", elem_id="examples", height=120)
    adapter = gr.Textbox(
        label="Adapter",
        info="lower-case letters, digits and dashes",
        placeholder="support",
        elem_id="adapter",
    )
    technique = gr.Radio(list(TECHNIQUES), value="LoRA", label="Technique", elem_id="technique")
    with gr.Accordion("Settings (empty: default)", open=False):
        rank = gr.Number(value=None, label="Rank", precision=0, elem_id="rank", placeholder="16")
        rate = gr.Number(value=None, label="Learning rate", elem_id="learning-rate", placeholder="0.0002")
        epochs = gr.Number(value=None, label="Epochs", precision=0, elem_id="epochs", placeholder="3")
    return [upload, adapter, technique, rank, rate, epochs]


def _frame(points: list[Any]) -> Any:
    # pandas comes with gradio; it is imported where the plot needs it because it is slow to load.
    import pandas as pd  # noqa: PLC0415

    return pd.DataFrame(
        {
            "step": [point.step for point in points],
            "loss": [point.loss for point in points],
            "kind": [point.kind for point in points],
        }
    )
