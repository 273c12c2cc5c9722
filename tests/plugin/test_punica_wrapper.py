"""The class vLLM calls, with vLLM's own mapping and metadata code but without an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch

from tests.plugin.conftest import EngineClasses
from tests.plugin.reference import (
    StackedLayer,
    assert_close_to_reference,
    expected_output,
    fill_slot,
    random_layer,
)

if TYPE_CHECKING:
    from vllm.lora.layers import LoRAMapping
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

SLOT_IDS: list[int | None] = [11, None, 12, 13]
"""Adapter ids by slot; slot 1 is free."""
TOKEN_IDS = (12, 0, 11, 11, 0, 13, 12, 13)
"""The adapter id of each token; 0 is the base model."""
TOKEN_SLOTS = [2, -1, 0, 0, -1, 3, 2, 3]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A wrapper and the means to move it on to another batch."""

    wrapper: PunicaWrapperCPU
    mapping: type[LoRAMapping]

    def map(self, token_ids: tuple[int, ...], prompt_ids: tuple[int, ...]) -> None:
        mapping = self.mapping(token_ids, prompt_ids, is_prefill=True)
        self.wrapper.update_metadata(mapping, SLOT_IDS, len(SLOT_IDS) + 1, 100)


def _step(wrapper_class: type[PunicaWrapperCPU], classes: EngineClasses) -> Step:
    step = Step(wrapper=wrapper_class(64, max_batches=16, device="cpu"), mapping=classes.mapping)
    step.map(TOKEN_IDS, TOKEN_IDS)
    return step


@pytest.fixture
def step(engine_classes: EngineClasses) -> Step:
    """The corrected wrapper, about to serve the tokens of TOKEN_IDS."""
    return _step(engine_classes.corrected, engine_classes)


def _layer(output_slices: tuple[int, ...], ranks: list[int], seed: int = 0) -> StackedLayer:
    return random_layer(
        generator=torch.Generator().manual_seed(seed),
        ranks=[ranks] * len(SLOT_IDS),
        max_rank=8,
        num_inputs=24,
        output_slices=output_slices,
        dtype=torch.bfloat16,
    )


def _batch(num_rows: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(num_rows, 24, generator=generator).to(torch.bfloat16)
    return torch.randn(num_rows, width, generator=generator).to(torch.bfloat16), x


@pytest.mark.parametrize(
    ("output_slices", "ranks"), [((32,), [4]), ((32, 16, 16), [4, 0, 8]), ((24, 24), [8, 8])]
)
def test_linear_layers_agree_with_the_reference(
    step: Step, output_slices: tuple[int, ...], ranks: list[int]
) -> None:
    layer = _layer(output_slices, ranks)
    y, x = _batch(len(TOKEN_IDS), sum(output_slices))
    expected = expected_output(y, x, layer, TOKEN_SLOTS)
    step.wrapper.add_lora_linear(y, x, layer.lora_a, layer.lora_b, 1.0, output_slices)
    assert_close_to_reference(y, expected)
    base = [1, 4]
    assert torch.equal(y[base].float(), expected[base])


def test_the_stock_class_gives_base_rows_an_adapters_delta(engine_classes: EngineClasses) -> None:
    """Why this plugin exists; when it fails, vLLM has corrected its operators and the plugin can go."""
    stock = _step(engine_classes.stock, engine_classes).wrapper
    layer = _layer((32,), [4])
    y, x = _batch(len(TOKEN_IDS), 32)
    before = y.clone()
    stock.add_lora_linear(y, x, layer.lora_a, layer.lora_b, 1.0, (32,))
    assert not torch.equal(y[1], before[1])


def test_a_slot_refilled_under_an_unchanged_mapping_serves_the_new_adapter(
    step: Step,
) -> None:
    layer = _layer((32,), [4])
    y, x = _batch(len(TOKEN_IDS), 32)
    step.wrapper.add_lora_linear(y.clone(), x, layer.lora_a, layer.lora_b, 1.0, (32,))
    fill_slot(layer, slot=2, slice_ranks=[8], generator=torch.Generator().manual_seed(2))
    expected = expected_output(y, x, layer, TOKEN_SLOTS)
    step.wrapper.add_lora_linear(y, x, layer.lora_a, layer.lora_b, 1.0, (32,))
    assert_close_to_reference(y, expected)


def test_a_new_step_with_other_rows_is_routed_anew(step: Step) -> None:
    layer = _layer((32,), [4])
    step.map((0, 13, 11), (0, 13, 11))
    y, x = _batch(3, 32)
    expected = expected_output(y, x, layer, [-1, 3, 0])
    step.wrapper.add_lora_linear(y, x, layer.lora_a, layer.lora_b, 1.0, (32,))
    assert_close_to_reference(y, expected)


@pytest.mark.parametrize("rank", [0, 4])
def test_embeddings_agree_with_the_reference(step: Step, rank: int) -> None:
    layer = _layer((32,), [rank])
    y, x = _batch(len(TOKEN_IDS), 32)
    expected = expected_output(y, x, layer, TOKEN_SLOTS)
    looked_up = torch.stack(
        [layer.lora_a[0][slot, 0].float() @ x[row].float() for row, slot in enumerate(TOKEN_SLOTS)]
    ).to(torch.bfloat16)
    step.wrapper.add_lora_embedding(y, looked_up, layer.lora_b[0], add_input=True)
    torch.testing.assert_close(y.float(), expected, rtol=2**-6, atol=2**-5)
    assert torch.equal(y[[1, 4]].float(), expected[[1, 4]])


def test_logits_use_one_row_for_each_sampled_token(step: Step) -> None:
    layer = _layer((40,), [4])
    step.map((12,) * 5 + (0,) * 3 + (13,), (12, 0, 13))
    y, x = _batch(3, 40)
    expected = expected_output(y, x, layer, [2, -1, 3])
    step.wrapper.add_lora_logits(y, x, layer.lora_a[0], layer.lora_b[0], 1.0)
    assert_close_to_reference(y, expected)


@pytest.mark.parametrize(("first", "last"), [(0, 5), (6, 11), (6, 8), (0, 12)])
def test_logits_of_a_prompt_use_the_adapter_of_its_own_tokens(step: Step, first: int, last: int) -> None:
    layer = _layer((40,), [4])
    step.map((12,) * 6 + (13,) * 6, (12, 13))
    y, hidden_states = _batch(12, 40)
    y, x = y[first:last].clone(), hidden_states[first:last]
    expected = expected_output(y, x, layer, ([2] * 6 + [3] * 6)[first:last])
    step.wrapper.add_lora_logits(y, x, layer.lora_a[0], layer.lora_b[0], 1.0)
    assert_close_to_reference(y, expected)


def test_logits_of_rows_that_belong_to_nothing_known_are_refused(step: Step) -> None:
    layer = _layer((40,), [4])
    y, x = _batch(5, 40)
    with pytest.raises(ValueError, match="5 rows"):
        step.wrapper.add_lora_logits(y, x, layer.lora_a[0], layer.lora_b[0], 1.0)


def test_logits_of_a_whole_prompt_pass_in_a_mixed_step_when_no_adapter_changes_logits(
    step: Step,
) -> None:
    layer = _layer((40,), [0])
    step.map((12,) * 6 + (13,) * 6, (12, 13))
    y, x = _batch(5, 40)
    before = y.clone()
    step.wrapper.add_lora_logits(y, x, layer.lora_a[0], layer.lora_b[0], 1.0)
    assert torch.equal(y, before)


@pytest.mark.parametrize("add_inputs", [True, False])
def test_sharded_layers_shrink_and_expand_apart(step: Step, add_inputs: bool) -> None:
    layer = _layer((32, 16), [4, 8])
    y, x = _batch(len(TOKEN_IDS), 10 + 48)
    slots = torch.tensor(TOKEN_SLOTS)
    start = y[:, 10:] if add_inputs else torch.where(slots.unsqueeze(1) < 0, y[:, 10:], 0)
    expected = expected_output(start, x, layer, TOKEN_SLOTS, scale=0.5)
    buffer = torch.zeros(2, len(TOKEN_IDS), 8)
    before = y.clone()
    step.wrapper.add_shrink(buffer, x, layer.lora_a, 0.5)
    step.wrapper.add_expand(
        y, buffer, layer.lora_b, layer.output_slices, offset_start=10, add_inputs=add_inputs
    )
    assert_close_to_reference(y[:, 10:], expected)
    assert torch.equal(y[:, :10], before[:, :10])
    assert torch.equal(y[slots < 0], before[slots < 0])
