"""The plan panel of the Training tab: memory, time and advice before anything is trained."""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from hotlora.aio import AsyncClient
from hotlora.errors import HotloraError, InvalidArgument
from hotlora.v1.dataset_service_pb2 import Dataset, UploadHeader
from hotlora.v1.planning_service_pb2 import DataDescription, PlanRequest, PlanResponse
from hotlora.v1.tuning_service_pb2 import Objective, Technique
from ui.cards import TECHNIQUES
from ui.listening import PRIVATE, toast
from ui.words import plain

_TITLES = {technique: title for title, technique in TECHNIQUES.items()}
_GIB = 1 << 30


def plan_panel(client: Callable[[], AsyncClient], upload: gr.File) -> None:
    """Lay out the panel and wire it; it plans for the file in `upload`, or for 1,000 ordinary rows."""
    with gr.Accordion("Plan: what it will need", open=False, elem_id="plan-panel"):
        ask = gr.Button("Plan", size="sm", elem_id="plan")
        shown = gr.HTML("", elem_id="planned")
    ask.click(_plan(client), upload, shown, api_visibility=PRIVATE, show_progress="minimal")


def _plan(client: Callable[[], AsyncClient]) -> Callable[..., Any]:
    async def plan(path: str | None) -> str:
        try:
            request = PlanRequest()
            if path:
                request.data.CopyFrom(await _data(client(), Path(path)))
            return plan_html(await client().plan(request))
        except HotloraError as error:
            raise toast(plain(error)) from error

    return plan


async def _data(client: AsyncClient, path: Path) -> DataDescription:
    """The rows of a file in numbers; nothing is kept of it."""
    dataset = await client.upload_dataset(path, wishes=UploadHeader(validate_only=True))
    report = dataset.report
    if not report.rows_kept:
        raise InvalidArgument("The file has no row that can be trained on.")
    return DataDescription(
        rows=report.rows_kept,
        tokens=report.tokens,
        longest_row_tokens=report.longest_row_tokens,
        trained_share=report.trained_tokens / max(1, report.tokens),
        objective=Objective.OBJECTIVE_PREFERENCE
        if dataset.kind == Dataset.KIND_PREFERENCES
        else Objective.OBJECTIVE_SUPERVISED,
        texts=dataset.kind == Dataset.KIND_TEXT,
    )


def plan_html(response: PlanResponse) -> str:
    """The plan as one small table and its advice; every foreign word is escaped."""
    recommended = response.recommendation
    rows = "".join(
        f"<tr{_marked(one.technique == recommended.technique)}><td>{_title(one.technique)}</td>"
        f"<td>{one.total_bytes / _GIB:.1f} GiB</td><td>{'yes' if one.fits else 'no'}</td>"
        f"<td>{_duration(one.seconds) if one.HasField('seconds') else 'not known'}</td></tr>"
        for one in response.techniques
    )
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in recommended.reasons)
    verdict = "" if recommended.fits else " (does not fit)"
    device = response.device
    return (
        '<div class="report plan">'
        f'<p class="muted">{response.data.rows:,} rows, {response.data.tokens:,} tokens; '
        f"{device.available_bytes / _GIB:.1f} of {device.memory_bytes / _GIB:.1f} GiB are free</p>"
        "<table><tr><th>technique</th><th>memory</th><th>fits</th><th>time</th></tr>"
        f'{rows}</table><p class="summary">Recommended: {_title(recommended.technique)}{verdict}</p>'
        f'<ul class="muted">{reasons}</ul></div>'
    )


def _marked(chosen: bool) -> str:
    return ' class="right"' if chosen else ""


def _title(technique: Technique) -> str:
    return escape(_TITLES.get(technique, Technique.Name(technique)))


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"
