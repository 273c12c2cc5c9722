"""Attention that stays within rows when several rows lie side by side in one packed sequence.

A packed batch has shape [1, tokens]. Each row attends to itself through torch's fused causal kernel, so
that no mask of tokens x tokens is ever built. Registered with transformers under `ROW_ATTENTION`; any model
that asks transformers for its attention can use it. It does not know what rows mean, nor which models obey
it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

ROW_ATTENTION = "hotlora_rows"


class RowAttentionUnsupportedError(Exception):
    """The model wants something of its attention (a cap, sinks, a bias) that the causal kernel has not."""


class _Boundaries:
    """Lengths of the rows in the batch of the present forward pass; one process runs one at a time."""

    lengths: tuple[int, ...] = ()


@contextmanager
def rows_of(lengths: tuple[int, ...]) -> Iterator[None]:
    """Within this context a packed forward pass consists of rows of these lengths, in order."""
    _Boundaries.lengths = lengths
    try:
        yield
    finally:
        _Boundaries.lengths = ()


@contextmanager
def plain_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within this context a model that has row attention has torch's own, for padded batches and caches."""
    present = model.config._attn_implementation
    if present != ROW_ATTENTION:
        yield
        return
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(present)


def _row_attention(
    module: nn.Module,
    query: Tensor,  # [1, heads, tokens, head size]
    key: Tensor,  # [1, key heads, tokens, head size]
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **wishes: object,
) -> tuple[Tensor, None]:
    """Signature and result shape ([1, tokens, heads, head size]) as transformers asks for."""
    for name in ("softcap", "s_aux", "position_bias"):
        if wishes.get(name) is not None:
            raise RowAttentionUnsupportedError(f"{type(module).__name__} uses {name}")
    lengths = list(_Boundaries.lengths)
    if attention_mask is not None or sum(lengths) != query.shape[2]:
        raise RowAttentionUnsupportedError(f"{type(module).__name__} is not given whole rows")
    rows = [
        sdpa_attention_forward(
            module,
            row_query,
            row_key,
            row_value,
            _window_mask(row_query.shape[2], sliding_window, query.device),
            scaling=scaling,
            dropout=dropout,
            is_causal=True,
        )[0]
        for row_query, row_key, row_value in zip(
            torch.split(query, lengths, dim=2),
            torch.split(key, lengths, dim=2),
            torch.split(value, lengths, dim=2),
            strict=True,
        )
    ]
    return torch.cat(rows, dim=1), None


def _window_mask(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """[1, 1, length, length], true where attended; None where the causal kernel does without."""
    if window is None or length <= window:
        return None
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    return ((distance >= 0) & (distance < window))[None, None]


def _no_mask(*_: object, **__: object) -> None:
    """Rows need no mask; transformers asks for one all the same."""


AttentionInterface.register(ROW_ATTENTION, _row_attention)
AttentionMaskInterface.register(ROW_ATTENTION, _no_mask)
