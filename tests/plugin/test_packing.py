"""Packed weights follow the engine's own tensors, whatever writes to them."""

from __future__ import annotations

import torch
from hotlora_vllm_cpu_lora.operators import add_lora
from hotlora_vllm_cpu_lora.packing import PackingCache, pack
from hotlora_vllm_cpu_lora.routing import route

from tests.plugin.reference import (
    StackedLayer,
    assert_close_to_reference,
    expected_output,
    fill_slot,
    random_layer,
)


def _layer(seed: int) -> StackedLayer:
    return random_layer(
        generator=torch.Generator().manual_seed(seed),
        ranks=[[4, 4], [2, 0], [0, 0]],
        max_rank=16,
        num_inputs=24,
        output_slices=(16, 8),
        dtype=torch.bfloat16,
    )


def test_padding_and_slices_without_weights_take_no_room() -> None:
    layer = _layer(0)
    weights = pack(layer.lora_a, layer.lora_b, torch.float32)
    assert weights.layout == (8, 2, 0)
    assert weights.expand.shape == (10, 24)
    assert [len(slot.spans) for slot in weights.slots] == [2, 1, 0]


def test_unchanged_weights_are_packed_once() -> None:
    layer, cache = _layer(1), PackingCache()
    first = cache.packed(layer.lora_a, layer.lora_b, torch.float32)
    assert cache.packed(layer.lora_a, layer.lora_b, torch.float32) is first


def test_a_slot_refilled_or_reset_at_any_moment_is_never_served_stale() -> None:
    layer, cache = _layer(2), PackingCache()
    generator = torch.Generator().manual_seed(3)
    slot_of_row = [0, 1, 2, -1, 2, 0]
    for refill in range(12):
        with torch.inference_mode(mode=refill % 2 == 0):
            fill_slot(layer, slot=refill % 3, slice_ranks=[refill % 5, 3 - refill % 4], generator=generator)
            x = torch.randn(6, 24, generator=generator).to(torch.bfloat16)
            y = torch.randn(6, 24, generator=generator).to(torch.bfloat16)
            expected = expected_output(y, x, layer, slot_of_row)
            weights = cache.packed(layer.lora_a, layer.lora_b, torch.float32)
            add_lora(y, x, weights, route(torch.tensor(slot_of_row)))
        assert_close_to_reference(y, expected)


def test_tensors_whose_writes_cannot_be_counted_are_packed_anew_each_time() -> None:
    cache = PackingCache()
    with torch.inference_mode():
        layer = _layer(4)
        before = cache.packed(layer.lora_a, layer.lora_b, torch.float32)
        layer.lora_b[0][0] *= 2
        after = cache.packed(layer.lora_a, layer.lora_b, torch.float32)
    assert torch.equal(after.slots[0].expand[:4, :16], before.slots[0].expand[:4, :16] * 2)
