"""A model's shape: what its parameters are, read from config.json and from the headers of its weights.

Standard library only and nothing is loaded: a header of a safetensors file names every tensor with its shape,
and where there are no weights the configuration gives the same for the families that it is known of. It knows
nothing of memory or techniques.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.tensor_headers import TensorHeaderError, read_headers

_EMBEDDINGS = (
    "embed_tokens",
    "wte",
    "wpe",
    "word_embeddings",
    "embed_in",
    "embed_positions",
    "tok_embeddings",
)
_HEADS = ("lm_head", "embed_out", "output")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.\d+\.(?P<rest>.+)\.weight$")
_TIED = ("gpt2", "bloom", "gemma", "gemma2", "gemma3_text")
"""Families that tie the output head to the embeddings where their configuration does not say."""
_PLAIN = ("gpt2", "gpt_neo", "gpt_neox", "gptj", "opt", "bloom", "falcon", "phi", "gpt_bigcode", "starcoder2")
"""Families whose feed-forward part has two matrices and no gate."""


class ShapeError(Exception):
    """The files do not tell the model's shape; the text says what is missing."""


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A linear layer that every block of the decoder has."""

    name: str
    """Last part of its name, for example `q_proj`: what target modules are called by."""
    inputs: int
    outputs: int
    count: int
    """In the whole model."""

    @property
    def parameters(self) -> int:
        """Weights of all of them; biases not counted."""
        return self.inputs * self.outputs * self.count

    def low_rank_parameters(self, rank: int) -> int:
        """Of an adapter on all of them: A is [rank, inputs], B is [outputs, rank]."""
        return rank * (self.inputs + self.outputs) * self.count


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A decoder, in numbers."""

    family: str
    """`model_type` of its configuration, for example `llama`."""
    layers: int
    hidden: int
    heads: int
    key_value_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    tied: bool
    """Whether the output head is the embeddings."""
    linears: tuple[Linear, ...]
    """Of the decoder, output head left out: what LoRA adapts and QLoRA quantises."""
    embedding_parameters: int
    """Of tokens and positions, and of an output head that is not tied."""
    other_parameters: int
    """Norms and biases."""

    @property
    def linear_parameters(self) -> int:
        """Of the decoder's linear layers."""
        return sum(linear.parameters for linear in self.linears)

    @property
    def parameters(self) -> int:
        """All of them, each counted once."""
        return self.linear_parameters + self.embedding_parameters + self.other_parameters

    @property
    def multiplied_parameters(self) -> int:
        """Of the matrices that every trained token is multiplied with: linear layers and output head."""
        return self.linear_parameters + self.vocabulary * self.hidden

    @property
    def gated(self) -> bool:
        """Whether the feed-forward part has a gate beside its two matrices."""
        return self.family not in _PLAIN

    def adapted(self, target_modules: Sequence[str] = ()) -> tuple[Linear, ...]:
        """The layers that an adapter goes to; without names, and with `all-linear`, all of them."""
        if not target_modules or tuple(target_modules) == ("all-linear",):
            return self.linears
        return tuple(linear for linear in self.linears if linear.name in target_modules)

    def adapter_parameters(self, rank: int, target_modules: Sequence[str] = ()) -> int:
        """Of low-rank matrices of that rank."""
        return sum(linear.low_rank_parameters(rank) for linear in self.adapted(target_modules))


def shape_of_directory(path: Path) -> ModelShape:
    """The shape of the model at `path`: its configuration, and its weights' headers where there are any.

    Blocks on disk for as long as it takes to read a few kilobytes. Raises ShapeError.
    """
    try:
        config = json.loads((path / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ShapeError(f"{path / 'config.json'} is missing or not JSON") from error
    if not isinstance(config, dict):
        raise ShapeError(f"{path / 'config.json'} is not a JSON object")
    shape = shape_of_config(config)
    tensors = dict(_tensors(sorted(path.glob("*.safetensors"))))
    return _measured(shape, tensors) if tensors else shape


def shape_of_config(config: Mapping[str, object]) -> ModelShape:
    """The shape that a configuration describes. Raises ShapeError naming the number that is missing."""
    hidden = _number(config, "hidden_size", "n_embd", "d_model")
    heads = _number(config, "num_attention_heads", "n_head", "num_heads")
    family = str(config.get("model_type", "llama"))
    key_value_heads = _number(config, "num_key_value_heads", "num_kv_heads", default=heads)
    return described(
        family=family,
        layers=_number(config, "num_hidden_layers", "n_layer", "num_layers"),
        hidden=hidden,
        heads=heads,
        key_value_heads=key_value_heads,
        head_size=_number(config, "head_dim", default=hidden // heads),
        intermediate=_number(config, "intermediate_size", "n_inner", "ffn_dim", default=4 * hidden),
        vocabulary=_number(config, "vocab_size"),
        positions=_number(config, "n_positions", default=0) if family == "gpt2" else 0,
        tied=bool(config.get("tie_word_embeddings", family in _TIED)),
    )


def described(
    *,
    family: str = "llama",
    layers: int,
    hidden: int,
    heads: int,
    key_value_heads: int,
    intermediate: int,
    vocabulary: int,
    tied: bool,
    head_size: int = 0,
    positions: int = 0,
) -> ModelShape:
    """A shape from its numbers alone. `head_size` 0 means hidden / heads; `positions` are learned ones."""
    head_size = head_size or hidden // heads
    queries, keys = heads * head_size, key_value_heads * head_size
    if family in _PLAIN:
        sizes = {
            "c_attn": (hidden, queries + 2 * keys),
            "c_proj": (queries, hidden),
            "c_fc": (hidden, intermediate),
            "mlp.c_proj": (intermediate, hidden),
        }
        other = layers * (4 * hidden + sum(outputs for _, outputs in sizes.values())) + 2 * hidden
    else:
        sizes = {
            "q_proj": (hidden, queries),
            "k_proj": (hidden, keys),
            "v_proj": (hidden, keys),
            "o_proj": (queries, hidden),
            "gate_proj": (hidden, intermediate),
            "up_proj": (hidden, intermediate),
            "down_proj": (intermediate, hidden),
        }
        other = layers * 2 * hidden + hidden
    return ModelShape(
        family=family,
        layers=layers,
        hidden=hidden,
        heads=heads,
        key_value_heads=key_value_heads,
        head_size=head_size,
        intermediate=intermediate,
        vocabulary=vocabulary,
        tied=tied,
        linears=tuple(
            Linear(name=name.rpartition(".")[2], inputs=inputs, outputs=outputs, count=layers)
            for name, (inputs, outputs) in sizes.items()
        ),
        embedding_parameters=(vocabulary * (1 if tied else 2) + positions) * hidden,
        other_parameters=other,
    )


def _measured(shape: ModelShape, tensors: Mapping[str, tuple[int, ...]]) -> ModelShape:
    """The same with what the weights say: exact for any family whose blocks are numbered."""
    counts: dict[tuple[str, int, int], int] = {}
    embeddings = others = 0
    for name, sizes in tensors.items():
        parameters = math.prod(sizes)
        layer = _LAYER.search(name)
        if len(sizes) == 2 and layer is not None:
            outputs, inputs = sizes if shape.gated or "c_" not in layer["rest"] else sizes[::-1]
            key = (layer["rest"].rpartition(".")[2], inputs, outputs)
            counts[key] = counts.get(key, 0) + 1
        elif any(part in _EMBEDDINGS or part in _HEADS for part in name.split(".")):
            embeddings += parameters
        else:
            others += parameters
    linears = tuple(
        Linear(name=name, inputs=inputs, outputs=outputs, count=count)
        for (name, inputs, outputs), count in counts.items()
    )
    if not linears:
        return shape  # blocks that are numbered in some other way: the configuration has to do
    return replace(shape, linears=linears, embedding_parameters=embeddings, other_parameters=others)


def _tensors(files: Iterable[Path]) -> Iterable[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor, out of the headers alone. Raises ShapeError."""
    for path in files:
        try:
            for name, header in read_headers(path).items():
                yield name, header.shape
        except TensorHeaderError as error:
            raise ShapeError(str(error)) from error


def _number(config: Mapping[str, object], *names: str, default: int | None = None) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    if default is None:
        raise ShapeError(f"config.json has no whole number called {' or '.join(names)}")
    return default
