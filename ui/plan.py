"""The plan panel of the Training tab: memory, time and advice before anything is trained."""

from collections.abc import Callable

import gradio as gr

from hotlora.aio import AsyncClient
from hotlora.errors import InvalidArgument
from hotlora.v1.dataset_service_pb2 import Dataset
from hotlora.v1.planning_service_pb2 import DataDescription, PlanRequest
from hotlora.v1.tuning_service_pb2 import Objective
from ui.listening import PRIVATE, Given, text_in, told
from ui.order import Order
from ui.plan_html import plan_html


def plan_panel(client: Callable[[], AsyncClient], order: Order) -> None:
    """Lay out the panel and wire it; it plans for the rows and settings of `order`, or for 1,000 ordinary
    rows."""
    with gr.Accordion("Plan: what it will need", open=False, elem_id="plan-panel"):
        probe = gr.Checkbox(
            label="Measure this machine first, so that the time is known",
            info="half a minute or more, and not while a job trains",
            elem_id="probe",
        )
        ask = gr.Button("Plan", size="sm", elem_id="plan")
        shown = gr.HTML("", elem_id="planned")

    async def plan(given: Given) -> str:
        with told():
            request = await _request(client(), order, given)
            if given[probe]:
                request.probe, request.probe_technique = True, order.technique_in(given)
            return plan_html(await client().plan(request))

    ask.click(plan, {*order.parts(), probe}, shown, api_visibility=PRIVATE, show_progress="minimal")


async def _request(client: AsyncClient, order: Order, given: Given) -> PlanRequest:
    """A plan for the rows of a file in numbers, of which nothing is kept, or for a dataset that is kept."""
    request = PlanRequest(
        base_model=text_in(given, order.base_model), hyperparameters=order.hyperparameters_in(given)
    )
    source = order.source.read(given)
    if source is None:
        return request
    wishes = order.wishes_in(given, [source])
    if source.is_kept:
        request.dataset = source.name
    else:
        request.data.CopyFrom(_data(await source.look(client, wishes)))
    return request


def _data(dataset: Dataset) -> DataDescription:
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
