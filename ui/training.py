"""The Training tab: start a training from a file, follow every job, see its loss, pause or cancel it."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr

from hotlora.aio import AsyncClient
from hotlora.errors import HotloraError
from hotlora.v1.dataset_service_pb2 import UploadHeader
from hotlora.v1.tuning_service_pb2 import Hyperparameters
from ui.board import Board
from ui.cards import TECHNIQUES, title
from ui.findings import findings
from ui.jobs import jobs_panel
from ui.listening import PRIVATE, toast
from ui.numbers import NotANumberError, decimal, whole
from ui.plan import plan_panel
from ui.words import plain


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
            job = jobs_panel(client, board)
    upload.change(_look(client), upload, found, api_visibility=PRIVATE, show_progress="minimal")
    start.click(_begin(client), form, job, api_visibility=PRIVATE, show_progress="minimal")


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
