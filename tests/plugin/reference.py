"""A LoRA layer as the engine lays it out, and what it should compute, row by row in fp32."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class StackedLayer:
    """One layer's tensors in vLLM's layout: one A and one B for each slice, padded to the largest rank."""

    lora_a: tuple[torch.Tensor, ...]
    """(slots, 1, max_rank, inputs) for each slice."""
    lora_b: tuple[torch.Tensor, ...]
    """(slots, 1, outputs of the slice, max_rank) for each slice."""

    @property
    def output_slices(self) -> tuple[int, ...]:
        return tuple(b.shape[-2] for b in self.lora_b)


def random_layer(
    *,
    generator: torch.Generator,
    ranks: list[list[int]],
    max_rank: int,
    num_inputs: int,
    output_slices: tuple[int, ...],
    dtype: torch.dtype,
) -> StackedLayer:
    """`ranks[slot][i]` is the rank of that slot's adapter in slice i; 0 where it has no weights there."""
    num_slots = len(ranks)
    lora_a = tuple(torch.zeros(num_slots, 1, max_rank, num_inputs, dtype=dtype) for _ in output_slices)
    lora_b = tuple(torch.zeros(num_slots, 1, size, max_rank, dtype=dtype) for size in output_slices)
    layer = StackedLayer(lora_a=lora_a, lora_b=lora_b)
    for slot, slice_ranks in enumerate(ranks):
        fill_slot(layer, slot=slot, slice_ranks=slice_ranks, generator=generator)
    return layer


def fill_slot(layer: StackedLayer, *, slot: int, slice_ranks: list[int], generator: torch.Generator) -> None:
    """Writes one adapter as the engine's set_lora does: reset the slot, then copy into its corner."""
    for a, b, rank in zip(layer.lora_a, layer.lora_b, slice_ranks, strict=True):
        num_inputs, num_outputs = a.shape[-1], b.shape[-2]
        a[slot] = 0
        b[slot] = 0
        a[slot, 0, :rank].copy_(torch.randn(rank, num_inputs, generator=generator) * num_inputs**-0.5)
        b[slot, 0, :, :rank].copy_(torch.randn(num_outputs, rank, generator=generator) * max(rank, 1) ** -0.5)


def expected_output(
    y: torch.Tensor, x: torch.Tensor, layer: StackedLayer, slot_of_row: list[int], *, scale: float = 1.0
) -> torch.Tensor:
    """y + scale * x @ A.T @ B.T in fp32; rows with slot -1 as they were."""
    result = y.float().clone()
    for row, slot in enumerate(slot_of_row):
        if slot < 0:
            continue
        first = 0
        for a, b in zip(layer.lora_a, layer.lora_b, strict=True):
            last = first + b.shape[-2]
            width = min(last, y.shape[1]) - first
            delta = b[slot, 0].float() @ (a[slot, 0].float() @ x[row].float())
            result[row, first : first + width] += scale * delta[:width]
            first = last
    return result


def assert_close_to_reference(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal up to the rounding of the type that `found` is kept in."""
    if found.dtype is torch.float32:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    else:
        # bf16 keeps 8 bits: half a step is 2**-9 of the value, once for the shrunk input, once for the sum.
        torch.testing.assert_close(found.float(), expected, rtol=2**-7, atol=2**-6)
