"""Where rows come from: an uploaded file, a dataset that the service keeps, or one of the hub."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from hotlora.aio import AsyncClient
from hotlora.errors import InvalidArgument
from hotlora.v1.dataset_service_pb2 import Dataset, HubSplit, UploadHeader
from ui.listening import PRIVATE, Given, Parts, text_in, told
from ui.typed import dataset
from ui.words import label, refusal

_KEPT = "datasets/"
_HUB = "hf:"
_NAME_CHARACTERS = 200
"""Of a display name, as many as the service takes."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where rows come from: one of the two is not empty."""

    path: str
    """Of a file on the page's machine."""
    name: str
    """datasets/{id}, or hf:OWNER/NAME."""

    @property
    def is_kept(self) -> bool:
        """Whether the service has the rows already, so that nothing is read."""
        return self.name.startswith(_KEPT)

    async def look(self, client: AsyncClient, wishes: UploadHeader) -> Dataset:
        """What is in it, with a preview. Nothing is made. Raises HotloraError."""
        if self.is_kept:
            dataset = await client.get_dataset(self.name)
            dataset.report.preview.extend((await client.preview_dataset(self.name, max_rows=1)).rows)
            return dataset
        only_look = UploadHeader(validate_only=True)
        only_look.MergeFrom(wishes)
        return await self._read(client, only_look)

    async def bring_in(self, client: AsyncClient, wishes: UploadHeader) -> Dataset:
        """The dataset of these rows, which is made unless it is kept already. Raises HotloraError."""
        return await client.get_dataset(self.name) if self.is_kept else await self._read(client, wishes)

    async def _read(self, client: AsyncClient, wishes: UploadHeader) -> Dataset:
        if self.name:
            split = HubSplit(repository=self.name.removeprefix(_HUB))
            return await client.import_dataset(
                split, display_name=self.name[:_NAME_CHARACTERS], wishes=wishes
            )
        path = Path(self.path)
        try:
            return await client.upload_dataset(path, display_name=path.name[:_NAME_CHARACTERS], wishes=wishes)
        except OSError as error:
            raise InvalidArgument(f"The page has no longer {path.name}: choose the file again.") from error


@dataclass(frozen=True, kw_only=True)
class SourceParts:
    """A field for a file, and one for a name in its place."""

    field: str
    """What a refusal names."""
    file: gr.File
    name: gr.Dropdown

    def parts(self) -> Parts:
        """Both."""
        return {self.file, self.name}

    def read(self, given: Given) -> Source | None:
        """What was chosen, if anything. Raises InvalidArgument where both were, and for a name of none."""
        path, name = text_in(given, self.file), dataset(text_in(given, self.name), self.field)
        if path and name:
            raise refusal(self.field, f"{name} contradicts the file {Path(path).name}: give one of the two")
        return Source(path=path, name=name) if path or name else None


def name_part(
    client: Callable[[], AsyncClient], fold: gr.Accordion, *, field: str, nothing: str
) -> gr.Dropdown:
    """A field for a name, called as the field of a request is; it offers what the service keeps whenever
    `fold` is opened. `nothing` says what holds where none is chosen."""
    part = gr.Dropdown(
        choices=[(nothing, "")],
        value="",
        label=label(field),
        info="one that the service keeps, or hf:OWNER/NAME",
        allow_custom_value=True,
        elem_id=field.replace("_", "-"),
    )

    async def offer() -> gr.Dropdown:
        with told():
            kept = (await client().list_datasets()).datasets
        offered = [(f"{each.display_name or each.name} · {each.rows:,} rows", each.name) for each in kept]
        return gr.Dropdown(choices=[(nothing, ""), *offered])

    fold.expand(offer, None, part, show_progress="hidden", api_visibility=PRIVATE)
    return part
