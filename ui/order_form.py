"""The form of the Training tab: a file, a name, a technique; all else is folded away and may stay empty."""

from collections.abc import Callable, Mapping

import gradio as gr

from hotlora.aio import AsyncClient
from hotlora.v1.adapter_service_pb2 import AdapterVersion
from hotlora.v1.tuning_service_pb2 import Objective
from ui.cards import TECHNIQUES
from ui.listening import PRIVATE, told
from ui.order import Order
from ui.reading import reading_form
from ui.settings import COMMON, EVALUATION, RARE, choices, options
from ui.source import SourceParts, name_part
from ui.words import label


def order_form(client: Callable[[], AsyncClient]) -> tuple[Order, gr.HTML]:
    """Lay out the form, and a place for what was found in the file."""
    file = gr.File(label="Examples", type="filepath", elem_id="examples", height=120)
    with gr.Accordion("What the file is", open=False, elem_id="reading") as fold:
        reading = reading_form()
        name = name_part(client, fold, field="dataset", nothing="the file above")
    found = gr.HTML("", elem_id="findings")
    adapter = gr.Textbox(
        label="Adapter",
        info="lower-case letters, digits and dashes",
        placeholder="support",
        elem_id="adapter",
    )
    technique = gr.Radio(
        ["Default", *TECHNIQUES],
        value="Default",
        label="Technique",
        info="default: LoRA, or that of the start version",
        elem_id="technique",
    )
    with gr.Accordion("Settings (empty: default)", open=False):
        settings = _settings(COMMON)
    with gr.Accordion("Start version, evaluation, early stopping", open=False, elem_id="stopping") as fold:
        start_version = _start_version(client, fold)
        settings |= _settings(EVALUATION)
        evaluation = SourceParts(
            field="evaluation_dataset",
            name=name_part(client, fold, field="evaluation_dataset", nothing="the rows set aside"),
            file=gr.File(label="Evaluation file", type="filepath", elem_id="evaluation-file", height=120),
        )
    with gr.Accordion("Base model, objective, adapter, optimizer", open=False, elem_id="rare") as fold:
        base_model = _base_model(client, fold)
        objective = gr.Dropdown(
            choices=choices(Objective.keys(), "what fits the dataset"),
            value="",
            label="Objective",
            filterable=False,
            elem_id="objective",
        )
        settings |= _settings(RARE)
    order = Order(
        source=SourceParts(field="dataset", file=file, name=name),
        reading=reading,
        adapter=adapter,
        base_model=base_model,
        technique=technique,
        objective=objective,
        start_version=start_version,
        evaluation=evaluation,
        settings=settings,
    )
    return order, found


def _settings(defaults: Mapping[str, str]) -> dict[str, gr.components.Component]:
    """A field for each setting, which says what holds where it is left empty."""
    with gr.Row(elem_classes=["fields"]):
        return {name: _setting(name, default) for name, default in defaults.items()}


def _setting(name: str, default: str) -> gr.components.Component:
    elem_id = name.replace("_", "-") if name != "seed" else "training-seed"  # Compare has a seed too
    if offered := options(name, default):
        return gr.Dropdown(choices=offered, value="", label=label(name), filterable=False, elem_id=elem_id)
    return gr.Textbox(value="", label=label(name), placeholder=default, max_lines=1, elem_id=elem_id)


def _base_model(client: Callable[[], AsyncClient], fold: gr.Accordion) -> gr.Dropdown:
    """A field that offers the base models that are served, whenever `fold` is opened."""
    usual = ("the adapter's, else the default", "")
    part = gr.Dropdown(
        choices=[usual],
        value="",
        label="Base model",
        allow_custom_value=True,
        elem_id="base-model",
    )

    async def offer() -> gr.Dropdown:
        with told():
            models = (await client().list_models()).models
        return gr.Dropdown(
            choices=[usual, *((model.id, model.id) for model in models if not model.adapter_version)]
        )

    fold.expand(offer, None, part, show_progress="hidden", api_visibility=PRIVATE)
    return part


def _start_version(client: Callable[[], AsyncClient], fold: gr.Accordion) -> gr.Dropdown:
    """A field that offers every version that can be gone on with, whenever `fold` is opened."""
    fresh = ("fresh weights", "")
    part = gr.Dropdown(
        choices=[fresh],
        value="",
        label="Start version",
        info="of an adapter, to go on with; ADAPTER@N",
        allow_custom_value=True,
        elem_id="start-version",
    )

    async def offer() -> gr.Dropdown:
        with told():
            models = (await client().list_models()).models
        versions = [
            (model.id, model.adapter_version)
            for model in models
            if model.adapter_version and model.state != AdapterVersion.STATE_FAILED
        ]
        return gr.Dropdown(choices=[fresh, *versions])

    fold.expand(offer, None, part, show_progress="hidden", api_visibility=PRIVATE)
    return part
