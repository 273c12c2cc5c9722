"""The jobs of the Training tab: cards of all, and of one its loss, its verdict, and buttons to steer it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import gradio as gr

from hotlora.aio import AsyncClient
from hotlora.errors import HotloraError
from hotlora.v1.tuning_service_pb2 import TuningJob
from ui.board import FINISHED, Board, Curve
from ui.cards import cards, fit_line, title
from ui.listening import PRIVATE, toast, told
from ui.plot import plot_html

REFRESH_SECONDS = 1.0


def jobs_panel(client: Callable[[], AsyncClient], board: Callable[[], Board]) -> gr.Dropdown:
    """Lay out the panel and wire it; returns the picker of the job that is looked at."""
    listing = gr.HTML(cards([], {}), elem_id="jobs")
    with gr.Row():
        job = gr.Dropdown(choices=[], label="Job", elem_id="job", interactive=True, filterable=False, scale=4)
        pause = gr.Button("Pause job", scale=1, min_width=100, elem_id="pause-job")
        resume = gr.Button("Resume job", scale=1, min_width=100, elem_id="resume-job")
        cancel = gr.Button("Cancel job", scale=1, min_width=100, elem_id="cancel-job")
    plot = gr.HTML(plot_html(Curve()), elem_id="loss")
    fit = gr.HTML("", elem_id="fit")
    seen = gr.State(None)
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
    return job


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
    with told():
        return await ask(chosen)


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
        now = (cards(jobs, differences), choices, value, plot_html(curve), fit_line(curve.fit))
        if now == before:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip(), gr.skip()
        return now[0], gr.Dropdown(choices=choices, value=value), now[3], now[4], now

    return refresh


def _still_there(chosen: str | None, jobs: Sequence[TuningJob]) -> str | None:
    """The chosen job, or the newest one when there is none like it."""
    names = [job.name for job in jobs]
    return chosen if chosen in names else (names[0] if names else None)
