"""The plan panel of the Training tab: memory, time and advice before anything is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from hotlora.aio import AsyncClient
from hotlora.errors import HotloraError, InvalidArgument
from hotlora.v1.dataset_service_pb2 import Dataset, UploadHeader
from hotlora.v1.planning_service_pb2 import DataDescription, PlanRequest
from hotlora.v1.tuning_service_pb2 import Objective
from ui.listening import PRIVATE, toast
from ui.plan_html import plan_html
from ui.words import plain


def plan_panel(client: Callable[[], AsyncClient], upload: gr.File) -> None:
    """Lay out the panel and wire it; it plans for the file in `upload`, or for 1,000 ordinary rows."""
    with gr.Accordion("Plan: what it will need", open=False, elem_id="plan-panel"):
        probe = gr.Checkbox(
            label="Measure this machine first, so that the time is known",
            info="half a minute or more, and not while a job trains",
            elem_id="probe",
        )
        ask = gr.Button("Plan", size="sm", elem_id="plan")
        shown = gr.HTML("", elem_id="planned")
    ask.click(_plan(client), [upload, probe], shown, api_visibility=PRIVATE, show_progress="minimal")


def _plan(client: Callable[[], AsyncClient]) -> Callable[..., Any]:
    async def plan(path: str | None, probe: bool) -> str:
        try:
            request = PlanRequest(probe=probe)
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
