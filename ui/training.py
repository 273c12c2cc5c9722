"""The Training tab: start a training from a file, follow every job, see its loss, pause or cancel it."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr

from hotlora.aio import AsyncClient
from hotlora.errors import HotloraError
from hotlora.v1.dataset_service_pb2 import UploadHeader
from hotlora.v1.tuning_service_pb2 import Hyperparameters, TuningJob
from ui.board import FINISHED, Board, Curve, Point
from ui.cards import TECHNIQUES, cards, fit_line, title
from ui.findings import findings
from ui.listening import PRIVATE, toast
from ui.numbers import NotANumberError, decimal, whole
from ui.plan import plan_panel
from ui.words import plain

REFRESH_SECONDS = 1.0


def training_tab(client: Callable[[], AsyncClient], board: Callable[[], Board]) -> None:
    """Lay out the tab and wire it. Both arguments give what belongs to the running event loop."""
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            upload = gr.File(label="Examples", type="filepath", elem_id="examples", height=120)
            found = gr.HTML("", elem_id="findings")
            form = [upload, *_form()]
            plan_panel(client, upload)
            start = gr.Button("Start training", variant="primary", elem_id="start-training")
        with gr.Column(scale=3, min_width=320):
            listing = gr.HTML(cards([], {}), elem_id="jobs")
            with gr.Row():
                job = gr.Dropdown(
                    choices=[], label="Job", elem_id="job", interactive=True, filterable=False, scale=4
                )
                pause = gr.Button("Pause job", scale=1, min_width=100, elem_id="pause-job")
                resume = gr.Button("Resume job", scale=1, min_width=100, elem_id="resume-job")
                cancel = gr.Button("Cancel job", scale=1, min_width=100, elem_id="cancel-job")
            plot = _plot()
            fit = gr.HTML("", elem_id="fit")
    seen = gr.State(None)
    upload.change(_look(client), upload, found, api_visibility=PRIVATE, show_progress="minimal")
    start.click(_begin(client), form, job, api_visibility=PRIVATE, show_progress="minimal")
    cancel.click(_stop(client), job, None, api_visibility=PRIVATE)
    pause.click(_pause(client), job, None, api_visibility=PRIVATE)
    resume.click(_resume(client), job, None, api_visibility=PRIVATE)
    gr.Timer(REFRESH_SECONDS).tick(
        _refresh(board),
        [job, seen],
        [listing, job, plot, fit, seen],
        show_progress="hidden",
        api_visibility=PRIVATE,
    )


def _form() -> list[gr.components.Component]:
    """In the order of `begin`'s parameters, behind the file."""
    adapter = gr.Textbox(
        label="Adapter",
        info="lower-case letters, digits and dashes",
        placeholder="support",
        elem_id="adapter",
    )
    technique = gr.Radio(list(TECHNIQUES), value="LoRA", label="Technique", elem_id="technique")
    with gr.Accordion("Settings (empty: default)", open=False):
        rank = gr.Textbox(value="", label="Rank", elem_id="rank", placeholder="8, 16 or 32, by the rows")
        rate = gr.Textbox(
            value="", label="Learning rate", elem_id="learning-rate", placeholder="by technique"
        )
        epochs = gr.Textbox(value="", label="Epochs", elem_id="epochs", placeholder="3 or 4, by the rows")
    return [adapter, technique, rank, rate, epochs]


def _plot() -> gr.LinePlot:
    return gr.LinePlot(
        x="step",
        y="loss",
        color="kind",
        x_title="step",
        y_title="loss (nats per token)",
        height=260,
        elem_id="loss",
        show_label=False,
    )


def _look(client: Callable[[], AsyncClient]) -> Callable[..., Any]:
    async def look(path: str | None) -> str:
        if not path:
            return ""
        try:
            return findings(
                await client().upload_dataset(Path(path), wishes=UploadHeader(validate_only=True))
            )
        except HotloraError as error:
            raise toast(plain(error)) from error

    return look


def _begin(client: Callable[[], AsyncClient]) -> Callable[..., Any]:
    async def begin(
        path: str | None,
        adapter_id: str,
        technique: str,
        rank: str,
        learning_rate: str,
        epochs: str,
    ) -> Any:
        if not path:
            raise toast("Choose a file of examples first.")
        try:
            settings = Hyperparameters(
                rank=whole(rank, "Rank"),
                learning_rate=decimal(learning_rate, "Learning rate"),
                epochs=whole(epochs, "Epochs"),
            )
            dataset = await client().upload_dataset(Path(path), display_name=Path(path).name[:200])
            try:
                created = await client().create_tuning_job(
                    dataset=dataset.name,
                    adapter_id=adapter_id.strip(),
                    technique=TECHNIQUES[technique],
                    hyperparameters=settings,
                )
            except HotloraError:
                await _take_back(client(), dataset.name)
                raise
        except HotloraError as error:
            raise toast(plain(error)) from error
        except NotANumberError as error:
            raise toast(str(error)) from error
        except ValueError as error:
            raise toast(f"A setting is far outside its range: {error}.") from error
        gr.Info(f"Training of {adapter_id} on {dataset.rows} rows is queued.")
        return gr.Dropdown(choices=[(title(created), created.name)], value=created.name)

    return begin


async def _take_back(client: AsyncClient, dataset: str) -> None:
    """Delete what was uploaded for a training that was refused, or each try would leave one more dataset."""
    # The service keeps it where a job came of the call after all and only its answer was lost.
    with suppress(HotloraError):
        await client.delete_dataset(dataset)


def _stop(client: Callable[[], AsyncClient]) -> Callable[..., Any]:
    async def stop(chosen: str | None) -> None:
        cancelled = await _asked(client().cancel_tuning_job, chosen)
        if cancelled.state not in FINISHED:
            gr.Info("The job is asked to stop; it ends within 5 seconds.")

    return stop


def _pause(client: Callable[[], AsyncClient]) -> Callable[..., Any]:
    async def pause(chosen: str | None) -> None:
        paused = await _asked(client().pause_tuning_job, chosen)
        if paused.state != TuningJob.STATE_PAUSED:
            gr.Info("The job pauses after the step it is in.")

    return pause


def _resume(client: Callable[[], AsyncClient]) -> Callable[..., Any]:
    async def resume(chosen: str | None) -> None:
        await _asked(client().resume_tuning_job, chosen)

    return resume


async def _asked(ask: Callable[[str], Awaitable[TuningJob]], chosen: str | None) -> TuningJob:
    """The chosen job after the wish; a toast where there is none, or where the service refuses."""
    if not chosen:
        raise toast("Choose a job first.")
    try:
        return await ask(chosen)
    except HotloraError as error:
        raise toast(plain(error)) from error


def _refresh(board: Callable[[], Board]) -> Callable[..., Any]:
    async def refresh(chosen: str | None, before: object) -> Any:
        try:
            jobs = await board().jobs()
            differences = await board().quantisation_differences(jobs)
        except HotloraError:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip(), before
        choices = [(title(found), found.name) for found in jobs]
        value = _still_there(chosen, jobs)
        curve = board().curve(value) if value else Curve()
        now = (cards(jobs, differences), choices, value, curve.marked(), fit_line(curve.fit))
        if now == before:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip(), gr.skip()
        # An empty frame would fix the kind column as numbers, and the legend with it.
        plotted = _frame(now[3]) if now[3] else None
        return now[0], gr.Dropdown(choices=choices, value=value), plotted, now[4], now

    return refresh


def _still_there(chosen: str | None, jobs: Sequence[TuningJob]) -> str | None:
    """The chosen job, or the newest one when there is none like it."""
    names = [job.name for job in jobs]
    return chosen if chosen in names else (names[0] if names else None)


def _frame(points: Sequence[Point]) -> Any:
    # pandas comes with gradio; it is imported where the plot needs it because it is slow to load.
    import pandas as pd  # noqa: PLC0415

    return pd.DataFrame(
        {
            "step": [point.step for point in points],
            "loss": [point.loss for point in points],
            "kind": [point.kind for point in points],
        }
    )
