"""The jobs of the Training tab: cards of all, and of one its loss, its verdict, and buttons to steer it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from hotlora.aio import AsyncClient
from hotlora.errors import HotloraError
from hotlora.v1.tuning_service_pb2 import TuningJob
from ui.board import FINISHED, Board, Curve
from ui.cards import cards, fit_line, title
from ui.listening import PRIVATE, WHATEVER_STANDS, keep_up, standing, still_there, toast, told
from ui.plot import plot_html

REFRESH_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the panel shows. Equal ones need no redraw."""

    cards: str
    choices: list[tuple[str, str]]
    job: str | None
    plot: str
    fit: str
    started: str | None
    """The job that was started last from this page: it was looked at then, whatever was chosen since."""


def jobs_panel(client: Callable[[], AsyncClient], board: Callable[[], Board]) -> gr.State:
    """Lay out the panel and wire it; returns where the name of a job goes that is to be looked at now."""
    listing = gr.HTML(cards([], {}), elem_id="jobs")
    with gr.Row():
        job = gr.Dropdown(choices=[], label="Job", elem_id="job", interactive=True, filterable=False, scale=4)
        pause = gr.Button("Pause job", scale=1, min_width=100, elem_id="pause-job")
        resume = gr.Button("Resume job", scale=1, min_width=100, elem_id="resume-job")
        cancel = gr.Button("Cancel job", scale=1, min_width=100, elem_id="cancel-job")
    plot = gr.HTML(plot_html(Curve()), elem_id="loss")
    fit = gr.HTML("", elem_id="fit")
    started, seen = gr.State(None), gr.State(None)
    for button, steer in ((cancel, _stop), (pause, _pause), (resume, _resume)):
        button.click(steer(client), job, None, preprocess=WHATEVER_STANDS, api_visibility=PRIVATE)
    events = [gr.Timer(REFRESH_SECONDS).tick]
    keep_up(events, _refresh(board), [job, started, seen], [listing, job, plot, fit, seen])
    return started


def _stop(client: Callable[[], AsyncClient]) -> Callable[..., Any]:
    async def stop(chosen: object) -> None:
        cancelled = await _asked(client().cancel_tuning_job, chosen)
        if cancelled.state not in FINISHED:
            gr.Info("The job is asked to stop; it ends within 5 seconds.")

    return stop


def _pause(client: Callable[[], AsyncClient]) -> Callable[..., Any]:
    async def pause(chosen: object) -> None:
        paused = await _asked(client().pause_tuning_job, chosen)
        if paused.state != TuningJob.STATE_PAUSED:
            gr.Info("The job pauses after the step it is in.")

    return pause


def _resume(client: Callable[[], AsyncClient]) -> Callable[..., Any]:
    async def resume(chosen: object) -> None:
        await _asked(client().resume_tuning_job, chosen)

    return resume


async def _asked(ask: Callable[[str], Awaitable[TuningJob]], chosen: object) -> TuningJob:
    """The chosen job after the wish; a toast where there is none, or where the service refuses."""
    name = standing(chosen)
    if not name:
        raise toast("Choose a job first.")
    with told():
        return await ask(name)


def _refresh(board: Callable[[], Board]) -> Callable[..., Any]:
    async def refresh(chosen: object, started: str | None, before: Shown | None) -> Any:
        try:
            jobs = await board().jobs()
            differences = await board().quantisation_differences(jobs)
        except HotloraError:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip(), before
        just_started = started if before is None or started != before.started else None
        value = still_there(just_started or chosen, [job.name for job in jobs])
        curve = board().curve(value) if value else Curve()
        now = Shown(
            cards=cards(jobs, differences),
            choices=[(title(found), found.name) for found in jobs],
            job=value,
            plot=plot_html(curve),
            fit=fit_line(curve.fit),
            started=started,
        )
        if now == before:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip(), gr.skip()
        # Without a value it keeps what somebody chose while this was asked for.
        keep = value == chosen
        picker = gr.Dropdown(choices=now.choices) if keep else gr.Dropdown(choices=now.choices, value=value)
        return now.cards, picker, now.plot, now.fit, now

    return refresh
