"""The frozen base: loaded from safetensors, optionally quantised to 4 bits, and probed for row packing.

It never runs code that came with a model, and knows neither adapters nor data.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from trainer.attention import ROW_ATTENTION, RowAttentionUnsupportedError, rows_of
from trainer.footprint import give_back

_PROBE_LENGTHS = (5, 9, 3)
_PROBE_TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 6e-2, torch.float16: 2e-2}
"""Relative error of logits that rounding explains; attention that leaks between rows is wrong by about 1."""

_BLOCK = 64
"""Weights that share a scale: the block size of bitsandbytes."""
_READ_BACK_ERROR = 0.05


class BaseModelLoadError(Exception):
    """The base model's files do not make a model that can be trained."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """A frozen base model in memory."""

    path: Path
    model: PreTrainedModel
    packs: bool
    """Whether rows side by side in one sequence give the same as rows by themselves; it is set up
    accordingly."""


def load_base(path: Path, dtype: torch.dtype | Literal["auto"]) -> Base:
    """Load the weights at `path` into CPU memory as `dtype`, frozen; "auto" is what the files have. Raises
    BaseModelLoadError."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise BaseModelLoadError(
            f"{path} could not be loaded: {str(error).strip().splitlines()[0]}"
        ) from error
    if not isinstance(model, PreTrainedModel):
        raise BaseModelLoadError(f"{path} is a {type(model).__name__}, not a model of transformers")
    model.requires_grad_(False)
    model.train(False)
    return Base(path=path, model=model, packs=_set_up_packing(model))


def quantise(model: PreTrainedModel, device: torch.device, between: Callable[[], None]) -> None:
    """Store every linear layer but the output head as NF4 with double quantisation (Dettmers et al. 2023).

    Works in place; arithmetic stays in the model's type. `between` is called before each layer. A layer that
    is not read back as it was, within what 4 bits allow, stays as it is.
    """
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    names = [  # and not the layers, so that each is gone once it is replaced
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    ]
    for name in names:
        between()
        _quantise_layer(model, name, device)
    give_back()


def release(model: nn.Module) -> None:
    """Let go of everything in the model, whoever still holds it; it computes nothing any more."""
    for module in list(model.modules()):
        for held in (module._parameters, module._buffers, module._modules):
            held.clear()
    give_back()


def _quantise_layer(model: PreTrainedModel, name: str, device: torch.device) -> None:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear | Conv1D)
    small = _in_4_bits(layer, device)
    if small is None:
        print(f"{name} stays in {layer.weight.dtype}: 4 bits are not read back right", file=sys.stderr)
        return
    parent, _, own_name = name.rpartition(".")
    setattr(model.get_submodule(parent), own_name, small)


def _in_4_bits(layer: nn.Linear | Conv1D, device: torch.device) -> nn.Module | None:
    from bitsandbytes.nn.modules import Linear4bit, Params4bit  # noqa: PLC0415  (LoRA need not pay for it)

    weight = layer.weight.data.t().contiguous() if isinstance(layer, Conv1D) else layer.weight.data
    outputs, inputs = weight.shape
    small = Linear4bit(  # type: ignore[no-untyped-call]
        inputs,
        outputs,
        bias=layer.bias is not None,
        compute_dtype=weight.dtype,
        quant_type="nf4",
        device="meta",
    )
    # On CPUs with bfloat16 it would else pack the weights for inference at the first pass without gradients:
    # in place, for shapes in whole blocks only, and never to be trained on again.
    small.support_avx512bf16_for_cpu = False
    # Quantisation happens when the weight moves to its device, also from CPU to CPU.
    small.weight = Params4bit(weight, compress_statistics=True, quant_type="nf4", module=small)
    small.bias = layer.bias
    small = small.to(device).requires_grad_(False)
    return small if reads_back(small.weight, weight) else None


def reads_back(quantised: Tensor, weight: Tensor) -> bool:
    """Whether a weight in 4 bits is what it was made from.

    The mean error over the largest value of a block of 64 is about 0.03 for NF4, and twice that where blocks
    get each other's scale. That happens: the kernel of bitsandbytes 0.50 for CPUs with AVX-512 does so where
    a row is no whole number of blocks, 32 or 96 inputs for example.
    """
    from bitsandbytes.functional import dequantize_4bit  # noqa: PLC0415

    state = quantised.quant_state  # type: ignore[attr-defined]
    whole = weight.numel() // _BLOCK * _BLOCK
    read = dequantize_4bit(quantised.data, state).flatten()[:whole].float().view(-1, _BLOCK)
    meant = weight.to(read.device).flatten()[:whole].float().view(-1, _BLOCK)
    errors = (read - meant).abs().mean(dim=1)
    return bool(errors.mean() <= _READ_BACK_ERROR * meant.abs().amax(dim=1).mean())


def _set_up_packing(model: PreTrainedModel) -> bool:
    """Give the model row attention if it then keeps packed rows apart, else leave it as it was."""
    usual = model.config._attn_implementation
    rows = [torch.arange(3, 3 + length)[None] * 7 % model.config.vocab_size for length in _PROBE_LENGTHS]
    with torch.no_grad():
        alone = torch.cat([model(input_ids=row, use_cache=False).logits for row in rows], dim=1)
        packed = _packed_logits(model, rows)
    if packed is not None and packed.shape == alone.shape:
        error = (packed - alone).abs().max() / alone.abs().max()
        if error < _PROBE_TOLERANCES[alone.dtype]:
            return True
    model.set_attn_implementation(usual)
    return False


def _packed_logits(model: PreTrainedModel, rows: list[Tensor]) -> Tensor | None:
    """Logits of all rows in one sequence, or None where the architecture has no part in row attention."""
    try:
        model.set_attn_implementation(ROW_ATTENTION)
        if model.config._attn_implementation != ROW_ATTENTION:
            return None
        with rows_of(_PROBE_LENGTHS):
            tokens = torch.cat(rows, dim=1)
            logits: Tensor = model(
                input_ids=tokens,
                position_ids=torch.cat([torch.arange(length) for length in _PROBE_LENGTHS])[None],
                logits_to_keep=torch.arange(tokens.shape[1]),
                use_cache=False,
            ).logits
            return logits
    except (RowAttentionUnsupportedError, TypeError, ValueError, KeyError):
        return None
