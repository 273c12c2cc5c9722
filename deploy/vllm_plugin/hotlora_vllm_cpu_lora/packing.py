"""LoRA weights rearranged for two matrix products per layer, rebuilt whenever the engine refills a slot.

vLLM keeps, for each slice of a merged layer (q, k, v; gate, up), one A of shape (slots, 1, max_rank, inputs)
and one B of shape (slots, 1, outputs, max_rank), padded with zeros to the largest rank the engine accepts.
Here all slots and slices lie in one A and one B, side by side along the rank, at the rank each adapter really
has. Knows nothing of batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceSpan:
    """Where one slice of a merged layer lies in a slot's packed weights."""

    ranks: slice
    """Rows of `PackedSlot.expand`."""
    outputs: slice
    """Columns of `PackedSlot.expand`, and of the layer's output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedSlot:
    """One adapter's part in one layer; views of the layer's packed weights. r is its rank summed over the
    slices."""

    shrink_t: torch.Tensor | None
    """(inputs, r); None for a layer whose A is a look-up that the engine does itself (embeddings)."""
    expand: torch.Tensor
    """(r, outputs), block-diagonal over the slices."""
    spans: tuple[SliceSpan, ...]
    """The slices that the adapter touches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedWeights:
    """One layer's adapters. R is the sum of the ranks over slots and slices."""

    slots: tuple[PackedSlot, ...]
    """By slot number. A rank of 0 where the slot's adapter does not touch this layer."""
    shrink_t: torch.Tensor | None
    """(inputs, R): every slot's, side by side."""
    expand: torch.Tensor
    """(R, outputs): every slot's, one above the other."""
    layout: tuple[int, ...]
    """Each slot's rank; layers with the same layout share a routing mask."""
    is_finite: bool
    """False where `expand` holds NaN or infinity: 0 * NaN is NaN, so then slots must not share a product."""

    @property
    def total_rank(self) -> int:
        """R."""
        return self.expand.shape[0]

    def slot_of_column(self) -> torch.Tensor:
        """(R,) int64: the slot that each packed rank belongs to."""
        return torch.repeat_interleave(torch.arange(len(self.layout)), torch.tensor(self.layout))


class PackingCache:
    """Packed weights by layer, valid as long as nothing has written to the layer's own tensors.

    torch counts every in-place write to a tensor or to a view of it (`Tensor._version`), inside inference
    mode too, so set_lora, reset_lora and whatever else writes to a slot is noticed without hooking any of
    them. Tensors that were made inside inference mode have no such count: those are packed on every call,
    which is slow but never stale. Layers live as long as the engine, so entries are never dropped.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[tuple[torch.Tensor, ...], tuple[int, ...], PackedWeights]] = {}

    def packed(
        self, lora_a: tuple[torch.Tensor, ...] | None, lora_b: tuple[torch.Tensor, ...], dtype: torch.dtype
    ) -> PackedWeights:
        """The weights of one layer in `dtype`, packed now if they changed since the last call."""
        entry = self._entries.get(id(lora_b[0]))
        if entry is not None:
            sources, versions, weights = entry
            if weights.expand.dtype == dtype and versions == tuple([tensor._version for tensor in sources]):
                return weights
        weights = pack(lora_a, lora_b, dtype)
        sources = lora_b if lora_a is None else (*lora_a, *lora_b)
        if not any(tensor.is_inference() for tensor in sources):
            # The entry holds the tensors, so that no other tensor can take over their ids.
            versions = tuple([tensor._version for tensor in sources])
            self._entries[id(lora_b[0])] = (sources, versions, weights)
        return weights


def pack(
    lora_a: tuple[torch.Tensor, ...] | None, lora_b: tuple[torch.Tensor, ...], dtype: torch.dtype
) -> PackedWeights:
    """Packs one layer.

    `lora_a` has (slots, 1, max_rank, inputs) for each slice, or is None; `lora_b` has (slots, 1, outputs,
    max_rank).
    """
    ranks = [_real_ranks(lora_a[i] if lora_a else None, lora_b[i]) for i in range(len(lora_b))]
    layout = tuple(sum(slice_ranks[slot] for slice_ranks in ranks) for slot in range(lora_b[0].shape[0]))
    shrink = None if lora_a is None else torch.empty(sum(layout), lora_a[0].shape[-1], dtype=dtype)
    expand = torch.zeros(sum(layout), sum(b.shape[-2] for b in lora_b), dtype=dtype)
    slots: list[PackedSlot] = []
    first_rank = 0
    for slot, rank in enumerate(layout):
        rows = slice(first_rank, first_rank + rank)
        first_rank = rows.stop
        slot_shrink, slot_expand = None if shrink is None else shrink[rows], expand[rows]
        spans = _slot_spans(lora_b, [slice_ranks[slot] for slice_ranks in ranks])
        for i, span in spans:
            num_ranks = span.ranks.stop - span.ranks.start
            if slot_shrink is not None and lora_a is not None:
                slot_shrink[span.ranks] = lora_a[i][slot, 0, :num_ranks]
            slot_expand[span.ranks, span.outputs] = lora_b[i][slot, 0, :, :num_ranks].T.to(dtype)
        shrink_t = None if slot_shrink is None else slot_shrink.T
        slots.append(
            PackedSlot(shrink_t=shrink_t, expand=slot_expand, spans=tuple(span for _, span in spans))
        )
    return PackedWeights(
        slots=tuple(slots),
        shrink_t=None if shrink is None else shrink.T,
        expand=expand,
        layout=layout,
        is_finite=bool(expand.isfinite().all()),
    )


def _slot_spans(lora_b: tuple[torch.Tensor, ...], slice_ranks: list[int]) -> list[tuple[int, SliceSpan]]:
    """(slice number, span) of each slice that one slot's adapter touches."""
    spans = []
    first_rank = first_output = 0
    for i, (b, rank) in enumerate(zip(lora_b, slice_ranks, strict=True)):
        outputs = slice(first_output, first_output + b.shape[-2])
        if rank > 0:
            spans.append((i, SliceSpan(ranks=slice(first_rank, first_rank + rank), outputs=outputs)))
        first_rank, first_output = first_rank + rank, outputs.stop
    return spans


def _real_ranks(a: torch.Tensor | None, b: torch.Tensor) -> list[int]:
    """For each slot, the rank beyond which A's rows or B's columns are nothing but padding."""
    is_used = (b != 0).any(dim=-2)[:, 0]  # (slots, max_rank)
    if a is not None:
        is_used = is_used & (a != 0).any(dim=-1)[:, 0]
    positions = torch.arange(1, is_used.shape[-1] + 1)
    return [int(rank) for rank in (is_used * positions).amax(dim=-1).tolist()]
