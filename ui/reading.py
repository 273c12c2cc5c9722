"""How rows are to be read: their shape, their columns, what they teach, and what becomes of bad ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from hotlora.v1.dataset_service_pb2 import BAD_ROWS_DROP, Format, UploadHeader
from hotlora.v1.resources_pb2 import Task
from ui.listening import Given, Parts, text_in
from ui.settings import choices
from ui.source import Source
from ui.typed import columns
from ui.words import refusal


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The fields of the form; the same for all files of a training."""

    format: gr.Dropdown
    task: gr.Dropdown
    mapping: gr.Textbox
    bad_rows: gr.Checkbox

    def parts(self) -> Parts:
        """All of them."""
        return {self.format, self.task, self.mapping, self.bad_rows}

    def wishes(self, given: Given, sources: Sequence[Source]) -> UploadHeader:
        """The wishes of an upload. Raises InvalidArgument for a mapping that is none, and for wishes where
        none of `sources` is read."""
        wishes = UploadHeader(
            format=text_in(given, self.format) or None,
            task=text_in(given, self.task) or None,
            mapping=columns(text_in(given, self.mapping), "mapping"),
            bad_rows=BAD_ROWS_DROP if given[self.bad_rows] else None,
        )
        if wishes != UploadHeader() and sources and all(source.is_kept for source in sources):
            raise refusal(
                "Format, task, mapping and bad rows",
                f"they belong to rows that are read, and {sources[0].name} was read when it was made",
            )
        return wishes


def reading_form() -> Reading:
    """Lay out the fields."""
    with gr.Row(elem_classes=["fields"]):
        shape = gr.Dropdown(
            choices=choices(Format.keys(), "by keys"),
            value="",
            label="Format",
            filterable=False,
            elem_id="format",
        )
        task = gr.Dropdown(
            choices=choices(Task.keys(), "none"),
            value="",
            label="Task",
            filterable=False,
            elem_id="task",
        )
    mapping = gr.Textbox(
        value="",
        label="Mapping",
        info="a key of the format and the column that holds it, a pair a line",
        placeholder="prompt=question",
        lines=2,
        max_lines=8,
        elem_id="mapping",
    )
    bad_rows = gr.Checkbox(
        label="Bad rows: drop them", info="else a file with any is refused", elem_id="bad-rows"
    )
    return Reading(format=shape, task=task, mapping=mapping, bad_rows=bad_rows)
