"""The operators against an fp32 reference on random mixed batches."""

from __future__ import annotations

import random

import pytest
import torch
from hotlora_vllm_cpu_lora.operators import (
    Design,
    add_lora,
    choose_design,
    compute_dtype,
    expand_into,
    shrink_into,
)
from hotlora_vllm_cpu_lora.packing import pack
from hotlora_vllm_cpu_lora.routing import route

from tests.plugin.reference import StackedLayer, assert_close_to_reference, expected_output, random_layer

SLICES = ((48,), (48, 16, 16), (32, 32), (40, 24))
DTYPES = (torch.bfloat16, torch.float32)


def _random_case(
    seed: int, dtype: torch.dtype, *, most_rows: int = 40
) -> tuple[StackedLayer, torch.Tensor, torch.Tensor, list[int]]:
    """A layer, an output, an input and each row's slot, which is -1 in about a third of the rows."""
    choice = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    output_slices = choice.choice(SLICES)
    num_slots = choice.randint(1, 5)
    ranks = [[choice.choice((0, 1, 3, 8)) for _ in output_slices] for _ in range(num_slots)]
    layer = random_layer(
        generator=generator,
        ranks=ranks,
        max_rank=8,
        num_inputs=choice.choice((16, 56)),
        output_slices=output_slices,
        dtype=dtype,
    )
    num_rows = choice.randint(1, most_rows)
    slot_of_row = [
        choice.randint(-1, num_slots - 1) if choice.random() < 0.9 else -1 for _ in range(num_rows)
    ]
    if choice.random() < 0.5:
        slot_of_row.sort(key=lambda slot: (slot * 7) % 5)  # neighbours, base rows anywhere
    x = torch.randn(num_rows, layer.lora_a[0].shape[-1], generator=generator).to(dtype)
    y = torch.randn(num_rows, sum(output_slices), generator=generator).to(dtype)
    return layer, y, x, slot_of_row


@pytest.mark.parametrize("design", [Design.GROUPS, Design.CONCATENATION, None])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_native", [True, False])
def test_random_mixed_batches_agree_with_the_reference_and_base_rows_keep_their_bits(
    design: Design | None, dtype: torch.dtype, is_native: bool
) -> None:
    for seed in range(60):
        layer, y, x, slot_of_row = _random_case(seed, dtype)
        scale = 1.0 if seed % 3 else 0.5
        expected = expected_output(y, x, layer, slot_of_row, scale=scale)
        before = y.clone()
        weights = pack(layer.lora_a, layer.lora_b, dtype if is_native else torch.float32)
        with torch.inference_mode():
            add_lora(y, x, weights, route(torch.tensor(slot_of_row)), scale=scale, design=design)
        assert_close_to_reference(y, expected)
        is_base = torch.tensor(slot_of_row) < 0
        assert torch.equal(_bits(y[is_base]), _bits(before[is_base]))


@pytest.mark.parametrize("design", list(Design))
def test_base_rows_keep_even_negative_zeros_and_nan(design: Design) -> None:
    layer, _, _, _ = _random_case(1, torch.bfloat16)
    num_slots, width = layer.lora_b[0].shape[0], sum(layer.output_slices)
    slot_of_row = torch.tensor([-1, 0, -1, num_slots - 1, -1])
    y = torch.full((5, width), -0.0, dtype=torch.bfloat16)
    y[2] = float("nan")
    before = y.clone()
    x = torch.randn(5, layer.lora_a[0].shape[-1]).to(torch.bfloat16)
    add_lora(y, x, pack(layer.lora_a, layer.lora_b, torch.float32), route(slot_of_row), design=design)
    assert torch.equal(_bits(y[slot_of_row < 0]), _bits(before[slot_of_row < 0]))


def test_a_batch_of_base_rows_alone_is_untouched() -> None:
    layer, y, x, slot_of_row = _random_case(2, torch.bfloat16)
    before = y.clone()
    weights = pack(layer.lora_a, layer.lora_b, torch.float32)
    add_lora(y, x, weights, route(torch.full((len(slot_of_row),), -1)))
    assert torch.equal(_bits(y), _bits(before))


def test_long_prompts_with_several_slices_agree_with_the_reference() -> None:
    generator = torch.Generator().manual_seed(3)
    layer = random_layer(
        generator=generator,
        ranks=[[4, 4, 4], [4, 0, 2]],
        max_rank=8,
        num_inputs=24,
        output_slices=(16, 8, 8),
        dtype=torch.bfloat16,
    )
    slot_of_row = [0] * 300 + [-1] * 10 + [1] * 290
    x = torch.randn(600, 24, generator=generator).to(torch.bfloat16)
    y = torch.randn(600, 32, generator=generator).to(torch.bfloat16)
    expected = expected_output(y, x, layer, slot_of_row)
    weights = pack(layer.lora_a, layer.lora_b, compute_dtype(torch.bfloat16))
    routing = route(torch.tensor(slot_of_row))
    add_lora(y, x, weights, routing, design=Design.GROUPS)
    assert_close_to_reference(y, expected)


@pytest.mark.parametrize("where", ["a", "b"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_with_broken_weights_harms_no_row_but_its_own(where: str, value: float) -> None:
    layer, _, _, _ = _random_case(5, torch.bfloat16)
    generator = torch.Generator().manual_seed(5)
    layer = random_layer(
        generator=generator,
        ranks=[[4], [4], [4]],
        max_rank=8,
        num_inputs=16,
        output_slices=(32,),
        dtype=torch.bfloat16,
    )
    (layer.lora_a if where == "a" else layer.lora_b)[0][1, 0, 0, 0] = value
    slot_of_row = [0, 1, 2, -1]
    x = torch.randn(4, 16, generator=generator).to(torch.bfloat16)
    y = torch.randn(4, 32, generator=generator).to(torch.bfloat16)
    expected = expected_output(y, x, layer, slot_of_row)
    add_lora(y, x, pack(layer.lora_a, layer.lora_b, torch.float32), route(torch.tensor(slot_of_row)))
    whole = [0, 2, 3]
    assert_close_to_reference(y[whole], expected[whole])
    assert not y[1].isfinite().all()


@pytest.mark.parametrize("width", [40, 70])
def test_padding_of_the_output_on_either_side_is_left_out(width: int) -> None:
    generator = torch.Generator().manual_seed(6)
    layer = random_layer(
        generator=generator,
        ranks=[[4], [8]],
        max_rank=8,
        num_inputs=16,
        output_slices=(48,),
        dtype=torch.float32,
    )
    x, y = torch.randn(6, 16, generator=generator), torch.randn(6, width, generator=generator)
    slot_of_row = [0, 1, -1, 1, 0, 0]
    expected = expected_output(y, x, layer, slot_of_row)
    add_lora(y, x, pack(layer.lora_a, layer.lora_b, torch.float32), route(torch.tensor(slot_of_row)))
    assert_close_to_reference(y, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_unpacked_products_agree_with_the_reference_and_leave_base_rows_alone(dtype: torch.dtype) -> None:
    for seed in range(30):
        layer, y, x, slot_of_row = _random_case(seed, dtype)
        expected = expected_output(y, x, layer, slot_of_row, scale=0.5)
        before = y.clone()
        routing = route(torch.tensor(slot_of_row))
        first = 0
        for a, b in zip(layer.lora_a, layer.lora_b, strict=True):
            z = torch.full((len(slot_of_row), a.shape[-2]), 9.0)
            shrink_into(z, x, a, routing, scale=0.5)
            assert (z[torch.tensor(slot_of_row) < 0] == 9.0).all()
            outputs = slice(first, first + b.shape[-2])
            expand_into(y, z, b, routing, outputs=outputs, add_inputs=True)
            first = outputs.stop
        assert_close_to_reference(y, expected)
        is_base = torch.tensor(slot_of_row) < 0
        assert torch.equal(_bits(y[is_base]), _bits(before[is_base]))


def test_a_batch_of_other_rows_than_the_step_routed_is_refused() -> None:
    layer, _, x, _ = _random_case(8, torch.float32)
    weights = pack(tuple(a + 1 for a in layer.lora_a), tuple(b + 1 for b in layer.lora_b), torch.float32)
    y = torch.zeros(len(x), sum(layer.output_slices))
    with pytest.raises(ValueError, match=f"{len(x)} rows .* assigned adapters to {len(x) + 1} rows"):
        add_lora(y, x, weights, route(torch.zeros(len(x) + 1, dtype=torch.long)))


def test_few_mixed_rows_share_products_and_long_prompts_or_one_adapter_do_not() -> None:
    generator = torch.Generator().manual_seed(9)
    layer = random_layer(
        generator=generator,
        ranks=[[16]] * 4,
        max_rank=16,
        num_inputs=576,
        output_slices=(576,),
        dtype=torch.bfloat16,
    )
    weights = pack(layer.lora_a, layer.lora_b, torch.float32)
    decode = torch.arange(32) % 4
    assert choose_design(route(decode), weights) is Design.CONCATENATION
    assert choose_design(route(torch.zeros(32, dtype=torch.long)), weights) is Design.GROUPS
    assert choose_design(route(torch.arange(4).repeat_interleave(512)), weights) is Design.GROUPS


def _bits(values: torch.Tensor) -> torch.Tensor:
    return values.view(torch.int16 if values.dtype is torch.bfloat16 else torch.int32)
