"""The LoRA arithmetic on CPU: y += (x @ A.T) @ B.T * scale for the rows that have an adapter, nothing for the
others.

vLLM 0.32's own operators copy an adapter's weights once per token, and let a row without an adapter (index
-1) pick the last slot's weights. Pure torch: knows of packed weights and of routing, not of vLLM.
"""

from __future__ import annotations

from enum import Enum

import torch

from hotlora_vllm_cpu_lora.packing import PackedSlot, PackedWeights
from hotlora_vllm_cpu_lora.routing import Routing, Rows

NEIGHBOURS_GROUP_PRODUCTS = 4e6
"""Multiply-adds that cost as much as one more group whose rows are neighbours. See `choose_design`."""
SCATTERED_GROUP_PRODUCTS = 8e6
"""The same where a group's rows must be gathered and written back."""
SPLIT_SLICES_ROWS = 256
"""From this many rows on, the zeros of a block-diagonal B cost more than a call per slice (512 rows: 4.05 to
3.20 ms)."""


class Design(Enum):
    """The two ways to serve a mixed batch; both give the same result up to rounding."""

    GROUPS = "groups"
    """Two products for each slot in use, on that slot's rows alone."""
    CONCATENATION = "concatenation"
    """Two products for all slots together; a mask drops what a row has from other slots' ranks."""


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type to multiply in for tensors of `dtype` on this processor.

    Without AVX-512, torch multiplies bf16 and fp16 in a scalar loop: 32 tokens x (576 -> 48 -> 960) took
    1,050 us on one Zen 3 core against 95 us in fp32, conversions included. Such processors get fp32 copies of
    the weights.
    """
    if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.float32
    if dtype is torch.float16 and not torch.ops.mkldnn._is_mkldnn_fp16_supported():
        return torch.float32
    return dtype


def choose_design(routing: Routing, weights: PackedWeights) -> Design:
    """The faster design for this batch and layer.

    Concatenation saves the calls of all groups but one, and pays with products of every row with every other
    slot's ranks. Both sides were measured on the layers of SmolLM2-135M at rank 16 (two Zen 3 cores, fp32, us
    per transformer layer, groups / concatenation):
        rows   4 adapters, scattered   4 adapters, neighbours   8 adapters, neighbours
           8             1310 /  552               866 /  541              1469 / 1189
          32             1719 /  954              1144 /  971              2550 / 1889
         128             2799 / 2323              1766 / 2304              3015 / 4408
         512             6440 / 8928              4817 / 8832              5638 / 14763
    A group saved is worth about as much as the products named below, wherever it was measured.
    """
    num_groups = sum(weights.layout[group.slot] > 0 for group in routing.groups)
    if num_groups <= 1 or not weights.is_finite or weights.shrink_t is None:
        return Design.GROUPS
    foreign_ranks = weights.total_rank * (num_groups - 1) / num_groups
    foreign_products = (
        routing.num_adapter_rows * foreign_ranks * (weights.shrink_t.shape[0] + weights.expand.shape[1])
    )
    products_per_group = SCATTERED_GROUP_PRODUCTS if routing.is_scattered else NEIGHBOURS_GROUP_PRODUCTS
    return Design.CONCATENATION if foreign_products < (num_groups - 1) * products_per_group else Design.GROUPS


def add_lora(
    y: torch.Tensor,
    x: torch.Tensor,
    weights: PackedWeights,
    routing: Routing,
    *,
    scale: float = 1.0,
    design: Design | None = None,
) -> None:
    """Adds each row's adapter to `y` (rows, outputs) in place; `x` is (rows, inputs).

    Rows without an adapter keep their bits. `y` may be wider than the adapters (padding), or narrower (then
    the adapters' last outputs are dropped). For weights without `shrink_t`, `x` is what shrinking would give.
    `design` is chosen by the batch when None. Raises ValueError where the batch has other rows than the
    routing was made for.
    """
    if routing.is_empty or weights.total_rank == 0:
        return
    check_rows(y, x, routing)
    if (design or choose_design(routing, weights)) is Design.GROUPS:
        for group in routing.groups:
            if weights.layout[group.slot] > 0:
                _add_group(y, x, weights.slots[group.slot], group.rows, scale)
    else:
        _add_concatenation(y, x, weights, routing, scale)


def _add_group(y: torch.Tensor, x: torch.Tensor, slot: PackedSlot, rows: Rows, scale: float) -> None:
    x_rows, y_rows = x[rows].to(slot.expand.dtype), y[rows]
    z = x_rows[:, : slot.expand.shape[0]] if slot.shrink_t is None else torch.mm(x_rows, slot.shrink_t)
    if len(slot.spans) > 1 and x_rows.shape[0] >= SPLIT_SLICES_ROWS:
        for span in slot.spans:
            _add_product(
                y_rows[:, span.outputs], z[:, span.ranks], slot.expand[span.ranks, span.outputs], scale
            )
    else:
        _add_product(y_rows, z, slot.expand, scale)
    if isinstance(rows, torch.Tensor):
        y.index_copy_(0, rows, y_rows)


def _add_concatenation(
    y: torch.Tensor, x: torch.Tensor, weights: PackedWeights, routing: Routing, scale: float
) -> None:
    assert weights.shrink_t is not None
    rows = routing.adapter_rows
    x_rows, y_rows = x[rows].to(weights.expand.dtype), y[rows]
    z = torch.mm(x_rows, weights.shrink_t)
    # Filling, not multiplying by 0: another slot's A may hold NaN.
    z.masked_fill_(routing.foreign_columns(weights.layout, weights.slot_of_column), 0)
    _add_product(y_rows, z, weights.expand, scale)
    if isinstance(rows, torch.Tensor):
        y.index_copy_(0, rows, y_rows)


def _add_product(y: torch.Tensor, z: torch.Tensor, expand: torch.Tensor, scale: float) -> None:
    """y += z @ expand * scale, on as many columns as both have."""
    width = min(y.shape[1], expand.shape[1])
    y, expand = y[:, :width], expand[:, :width]
    if y.dtype == expand.dtype:
        y.addmm_(z, expand, alpha=scale)
    else:
        y.add_(torch.mm(z, expand), alpha=scale)


def shrink_into(
    y: torch.Tensor, x: torch.Tensor, lora_a: torch.Tensor, routing: Routing, *, scale: float
) -> None:
    """Sets `y` (rows, max_rank or more) to x @ A.T * scale for rows with an adapter; other rows keep what
    they hold.

    `lora_a` is (slots, 1, max_rank, inputs), unpacked: the sharded layers that need this meet between the
    products.
    """
    check_rows(y, x, routing)
    dtype = compute_dtype(lora_a.dtype)
    for group in routing.groups:
        a = lora_a[group.slot, 0].to(dtype)
        y[group.rows, : a.shape[0]] = (torch.mm(x[group.rows].to(dtype), a.T) * scale).to(y.dtype)


def expand_into(
    y: torch.Tensor,
    x: torch.Tensor,
    lora_b: torch.Tensor,
    routing: Routing,
    *,
    outputs: slice,
    add_inputs: bool,
) -> None:
    """Adds x @ B.T to the columns `outputs` of `y`, or replaces them, for rows with an adapter.

    `lora_b` is (slots, 1, outputs, max_rank), unpacked.
    """
    check_rows(y, x, routing)
    dtype = compute_dtype(lora_b.dtype)
    y = y[:, outputs]
    for group in routing.groups:
        b = lora_b[group.slot, 0, : y.shape[1]].to(dtype)
        delta = torch.mm(x[group.rows].to(dtype), b.T)
        columns = slice(0, b.shape[0])
        y[group.rows, columns] = (y[group.rows, columns] + delta if add_inputs else delta).to(y.dtype)


def check_rows(y: torch.Tensor, x: torch.Tensor, routing: Routing) -> None:
    """Raises ValueError where the batch has other rows than the routing was made for."""
    if not routing.is_empty and not x.shape[0] == y.shape[0] == routing.num_rows:
        raise ValueError(
            f"LoRA input has {x.shape[0]} rows and output {y.shape[0]}, "
            f"but this step assigned adapters to {routing.num_rows} rows"
        )
