"""Prompt-tuned versions: their virtual tokens, and prompts composed of these and the base's own embeddings.

The engine knows nothing of such a version: it gets every prompt as embeddings, with the virtual tokens
before those of the prompt's token ids, and answers as its base. Everything here comes from published
artifacts and from the base model's files; nothing of what a client sends becomes a number of a tensor.
"""

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.engine.embeddings import Dtype, PromptEmbeddings
from service.jsonshape import mapping
from service.safetensors import Rows, TensorEntry, UnreadableTensorError, read, tensors_of

WEIGHTS_NAME = "adapter_model.safetensors"
TENSOR_NAME = "prompt_embeddings"
_TABLE_NAMES = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
"""How the names of embedding matrices end: Llama and most others, GPT-2, GPT-NeoX, Falcon."""
_CHANGES_AFTER_LOOKUP = ("gemma", "bloom", "xglm", "biogpt", "minicpm", "bart")
"""Parts of the `model_type` of families that scale or normalise embeddings as part of the look-up: their rows
are not what the layers get."""


class NoPlainEmbeddingsError(Exception):
    """The base model's embeddings cannot be composed here; the message says why."""


class MalformedPromptError(Exception):
    """An artifact's virtual tokens do not fit its base or its manifest; the message says how."""


@dataclass(frozen=True, kw_only=True)
class SoftPrompt:
    """The virtual tokens of one version."""

    rows: bytes
    """[tokens, hidden size], in the numbers of the base's own table."""
    tokens: int


class EmbeddingTable:
    """The base model's embedding matrix, one row for each token id, read from its safetensors by memory
    map."""

    def __init__(self, base_path: Path) -> None:
        """Blocks on disk. Raises NoPlainEmbeddingsError, OSError."""
        try:
            entry = _find_table(base_path)
            self._rows = Rows(entry)
        except UnreadableTensorError as error:
            raise NoPlainEmbeddingsError(f"the base model's embeddings cannot be read: {error}") from error
        self.dtype = Dtype(entry.dtype)

    @property
    def width(self) -> int:
        """The hidden size."""
        return self._rows.width

    def compose(self, prompt: SoftPrompt, token_ids: Sequence[int]) -> PromptEmbeddings:
        """The virtual tokens, then the rows of `token_ids`. Milliseconds for each megabyte: call it in a
        thread."""
        rows = b"".join((prompt.rows, *(self._rows[token] for token in token_ids)))
        return PromptEmbeddings(rows=rows, width=self.width, dtype=self.dtype)

    def read_prompt(self, directory: Path, virtual_tokens: int) -> SoftPrompt:
        """The virtual tokens published in `directory`; blocks on disk. Raises MalformedPromptError,
        OSError."""
        try:
            entries = tensors_of(directory / WEIGHTS_NAME)
            entry = entries.get(TENSOR_NAME)
            if entry is None or len(entries) != 1:
                raise MalformedPromptError(
                    f"{WEIGHTS_NAME} has tensors {sorted(entries)[:3]}, not {TENSOR_NAME} alone"
                )
            if entry.shape != (virtual_tokens, self.width) or entry.dtype != Dtype.BFLOAT16:
                raise MalformedPromptError(
                    f"{TENSOR_NAME} is {list(entry.shape)} of {entry.dtype}; {virtual_tokens} virtual tokens "
                    f"for this base are [{virtual_tokens}, {self.width}] of {Dtype.BFLOAT16}"
                )
            content = read(entry)
        except UnreadableTensorError as error:
            raise MalformedPromptError(str(error)) from error
        return SoftPrompt(rows=_converted(content, self.dtype), tokens=virtual_tokens)


def _find_table(base_path: Path) -> TensorEntry:
    try:
        config = mapping(json.loads((base_path / "config.json").read_bytes()))
    except (ValueError, TypeError) as error:
        raise NoPlainEmbeddingsError(f"the base model's config.json cannot be read: {error}") from error
    family = str(config.get("model_type", ""))
    if any(part in family for part in _CHANGES_AFTER_LOOKUP):
        raise NoPlainEmbeddingsError(
            f"models of type {family} change embeddings right after the look-up, so virtual tokens cannot be "
            "put before them here; LoRA adapters of this base can be served"
        )
    for file in sorted(base_path.glob("*.safetensors")):
        for name, entry in sorted(tensors_of(file).items()):
            if name.endswith(_TABLE_NAMES) and len(entry.shape) == 2:
                return _fitting(name, entry, config.get("hidden_size", config.get("n_embd")))
    raise NoPlainEmbeddingsError(
        f"the base model's files have no embedding matrix known here (...{', ...'.join(_TABLE_NAMES)})"
    )


def _fitting(name: str, entry: TensorEntry, hidden_size: object) -> TensorEntry:
    if entry.shape[1] != hidden_size:
        raise NoPlainEmbeddingsError(
            f"{name} has rows of {entry.shape[1]} numbers, and the layers take {hidden_size}: what lies "
            "between is not known here"
        )
    return entry


def _converted(content: bytes, target: Dtype) -> bytes:
    """bfloat16 numbers in another kind of floating point; a few thousand of them. Raises
    MalformedPromptError."""
    widened = bytearray(2 * len(content))  # a bfloat16 is the upper half of a 32-bit number
    widened[2::4], widened[3::4] = content[0::2], content[1::2]
    numbers = struct.unpack(f"<{len(content) // 2}f", widened)
    if not all(map(math.isfinite, numbers)):
        raise MalformedPromptError(f"{TENSOR_NAME} has numbers that are not finite")
    if target is Dtype.BFLOAT16:
        return content
    if target is Dtype.FLOAT32:
        return bytes(widened)
    try:
        return struct.pack(f"<{len(numbers)}e", *numbers)
    except OverflowError as error:
        raise MalformedPromptError(f"{TENSOR_NAME} has numbers beyond the base's 16-bit range") from error
