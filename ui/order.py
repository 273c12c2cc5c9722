"""The order of a training: what a form asks for, and the job that is made of it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import gradio as gr

from hotlora.aio import AsyncClient
from hotlora.errors import HotloraError, InvalidArgument, NotFound
from hotlora.v1.dataset_service_pb2 import Dataset, UploadHeader
from hotlora.v1.tuning_service_pb2 import TECHNIQUE_UNSPECIFIED, Hyperparameters, Technique, TuningJob
from ui.cards import TECHNIQUES
from ui.listening import Given, Parts, text_in
from ui.reading import Reading
from ui.settings import hyperparameters
from ui.source import Source, SourceParts
from ui.typed import adapter_id, version
from ui.words import plain, refusal


@dataclass(frozen=True, kw_only=True)
class Order:
    """The fields of the form. What is left empty stays unset."""

    source: SourceParts
    reading: Reading
    adapter: gr.Textbox
    base_model: gr.Dropdown
    technique: gr.Radio
    objective: gr.Dropdown
    start_version: gr.Dropdown
    evaluation: SourceParts
    settings: Mapping[str, gr.components.Component]
    """By field of Hyperparameters."""

    def parts(self) -> Parts:
        """All of them."""
        return {
            *self.source.parts(),
            *self.reading.parts(),
            self.adapter,
            self.base_model,
            self.technique,
            self.objective,
            self.start_version,
            *self.evaluation.parts(),
            *self.settings.values(),
        }

    def technique_in(self, given: Given) -> Technique:
        """The technique that was chosen; unspecified for none."""
        return TECHNIQUES.get(text_in(given, self.technique), TECHNIQUE_UNSPECIFIED)

    def hyperparameters_in(self, given: Given) -> Hyperparameters:
        """The settings that were given. Raises InvalidArgument naming every one that cannot be read."""
        return hyperparameters({name: text_in(given, part) for name, part in self.settings.items()})

    def wishes_in(self, given: Given, sources: Sequence[Source]) -> UploadHeader:
        """How rows are to be read, and by which base model's tokenizer. Raises as `Reading.wishes`."""
        wishes = self.reading.wishes(given, sources)
        wishes.base_model = text_in(given, self.base_model)
        return wishes

    async def place(self, client: AsyncClient, given: Given) -> tuple[TuningJob, Dataset]:
        """The job, queued, and the dataset that it trains on. Raises HotloraError, and then no dataset
        is left that was made for the job."""
        source, evaluation = self.source.read(given), self.evaluation.read(given)
        if source is None:
            raise InvalidArgument("Choose a file of examples first.")
        wishes = self.wishes_in(given, [source, *([evaluation] if evaluation else [])])
        adapter = adapter_id(text_in(given, self.adapter), "adapter")
        start_version = version(text_in(given, self.start_version), "start_version")
        settings = self.hyperparameters_in(given)
        made: list[str] = []
        try:
            dataset = await source.bring_in(client, wishes)
            made += [] if source.is_kept else [dataset.name]
            evaluated = await _evaluation_dataset(client, evaluation, wishes) if evaluation else ""
            made += [evaluated] if evaluation and not evaluation.is_kept else []
            job = await client.create_tuning_job(
                dataset=dataset.name,
                adapter_id=adapter,
                base_model=wishes.base_model,
                technique=self.technique_in(given),
                objective=text_in(given, self.objective) or "OBJECTIVE_UNSPECIFIED",
                hyperparameters=settings,
                start_version=start_version,
                evaluation_dataset=evaluated,
            )
        except HotloraError:
            for name in made:
                await _take_back(client, name)
            raise
        return job, dataset


async def _evaluation_dataset(client: AsyncClient, source: Source, wishes: UploadHeader) -> str:
    """Its name. Raises InvalidArgument that says which of the two is refused."""
    try:
        return (await source.bring_in(client, wishes)).name
    except (InvalidArgument, NotFound) as error:
        raise refusal("evaluation_dataset", plain(error)) from error


async def _take_back(client: AsyncClient, dataset: str) -> None:
    """Delete what was made for a training that was refused, or each try would leave one more dataset."""
    # The service keeps it where a job came of the call after all and only its answer was lost.
    with suppress(HotloraError):
        await client.delete_dataset(dataset)
