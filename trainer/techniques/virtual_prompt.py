"""Prompt tuning (Lester et al. 2021, arXiv:2104.08691): embeddings of virtual tokens in front of every row.

The base stays as it is; what is trained is a table [virtual tokens, hidden size] that stands where the
embeddings of a fixed prompt would. Semantics and files are those of PEFT's PROMPT_TUNING: every row has the
whole table in front of it, positions count it, and the attention sees it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PromptTuningConfig, PromptTuningInit, TaskType
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.batches import Batch
from trainer.config import Hyperparameters
from trainer.model import Base
from trainer.techniques.adapted import PUBLISHED_DTYPE, Adapted
from trainer.techniques.low_rank import write_adapter

TENSOR = "prompt_embeddings"
"""PEFT's name for the table in the published file."""


class InitialPromptError(Exception):
    """The text that virtual tokens should begin as has no tokens."""


class VirtualPrompt(Adapted):
    """See the module. The table is 32-bit and cast to the base's type for each forward pass."""

    def __init__(self, base: Base, settings: Hyperparameters, device: torch.device) -> None:
        self._model: PreTrainedModel = base.model
        self._model.to(device)  # type: ignore[arg-type]  # transformers decorates torch's own method
        words = self._model.get_input_embeddings()
        assert isinstance(words, nn.Embedding)
        ids = _initial_ids(base.path, settings, words.num_embeddings).to(device)
        with torch.no_grad():
            # Through the layer and not from its weights: some families scale what they look up.
            self._table = nn.Parameter(words(ids).float())
        self._begin = self._table.detach().to(PUBLISHED_DTYPE)
        self._settings = settings
        self._words = words
        self._alone = False

    @property
    def model(self) -> PreTrainedModel:
        return self._model

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        return {TENSOR: self._table}

    @property
    def virtual_tokens(self) -> int:
        return 0 if self._alone else len(self._table)

    @property
    def front(self) -> Tensor | None:
        return None if self._alone else self._table

    @property
    def facts(self) -> Mapping[str, object]:
        return {"virtual_tokens": len(self._table)}

    def logits(self, batch: Batch) -> Tensor:
        inputs = dict(batch.inputs)
        if not self._alone:
            inputs["inputs_embeds"] = self._embedded(inputs.pop("input_ids"), batch)
        return self._logits_of(batch, inputs)

    def _embedded(self, token_ids: Tensor, batch: Batch) -> Tensor:
        """[rows, columns, hidden], the table in front of each row."""
        embeds: Tensor = self._words(token_ids)
        table = self._table.to(embeds.dtype)
        if batch.picked is not None:  # padded: one row a line
            return torch.cat([table.expand(len(embeds), -1, -1), embeds], dim=1)
        own = [length - len(table) for length in batch.row_lengths]
        rows = torch.split(embeds[0], own)
        return torch.cat([piece for row in rows for piece in (table, row)])[None]

    @contextmanager
    def base_alone(self) -> Iterator[None]:
        self._alone = True
        try:
            yield
        finally:
            self._alone = False

    def is_unchanged(self) -> bool:
        return torch.equal(self._table.detach().to(PUBLISHED_DTYPE), self._begin)

    def write(self, directory: Path, base_name: str) -> None:
        text = self._settings.initial_prompt
        config = PromptTuningConfig(
            task_type=TaskType.CAUSAL_LM,
            num_virtual_tokens=len(self._table),
            token_dim=self._table.shape[1],
            num_transformer_submodules=1,
            num_attention_heads=self._model.config.num_attention_heads,
            num_layers=self._model.config.num_hidden_layers,
            prompt_tuning_init=PromptTuningInit.TEXT if text else PromptTuningInit.SAMPLE_VOCAB,
            prompt_tuning_init_text=text or None,
            tokenizer_name_or_path=base_name if text else None,
        )
        write_adapter(directory, config.to_dict(), {TENSOR: self._table}, base_name)


def _initial_ids(base: Path, settings: Hyperparameters, vocabulary: int) -> Tensor:
    """[virtual tokens], those of the text, cut or repeated to fit, else drawn from the whole vocabulary."""
    count = settings.virtual_tokens
    if not settings.initial_prompt:
        generator = torch.Generator().manual_seed(settings.seed)
        return torch.randint(0, vocabulary, (count,), generator=generator)
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    ids = tokenizer.encode(settings.initial_prompt, add_special_tokens=False).ids
    if not ids:
        raise InitialPromptError(f"its tokenizer makes no token of {settings.initial_prompt!r}")
    return torch.tensor((ids * -(-count // len(ids)))[:count])
