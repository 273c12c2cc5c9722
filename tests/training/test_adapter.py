"""The adapter's own arithmetic against PEFT's."""

from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from tests.training.conftest import Bases
from tests.training.tiny import build_base
from trainer.adapter import (
    TargetModulesError,
    add_low_rank,
    draw_kept,
    inject,
    matrices_of,
    target_modules_of,
)
from trainer.model import BaseModelLoadError, load_base, quantise, reads_back

IDS = torch.tensor([[5, 9, 200, 31, 7, 7, 90, 2]])


def losses_and_gradients(model: torch.nn.Module) -> tuple[float, dict[str, torch.Tensor]]:
    loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
    loss.backward()
    return float(loss.detach()), {
        name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None
    }


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_values_and_gradients_are_those_of_peft(base_of: Bases, family: str) -> None:
    ours = inject(
        AutoModelForCausalLM.from_pretrained(base_of(family), dtype=torch.float32),
        rank=4,
        alpha=8.0,
        dropout=0.0,
        target_modules=(),
        seed=3,
    )
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=target_modules_of(ours), fan_in_fan_out=family == "gpt2"
    )
    plain = AutoModelForCausalLM.from_pretrained(base_of(family), dtype=torch.float32).requires_grad_(False)
    theirs = get_peft_model(plain, config)
    torch.manual_seed(5)
    for (name, parameter), (other_name, other) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert name == other_name
        if parameter.requires_grad:
            parameter.data.copy_(torch.randn_like(parameter) * 0.1)
            other.data.copy_(parameter.data)
    loss, gradients = losses_and_gradients(ours)
    expected_loss, expected = losses_and_gradients(theirs)
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        if "lora_" in name:
            assert torch.allclose(gradient, expected[name], atol=1e-5), name


def test_what_is_dropped_in_the_forward_pass_is_dropped_in_the_backward_pass() -> None:
    layer = torch.nn.Linear(64, 8, bias=False).requires_grad_(False)
    torch.manual_seed(2)
    x = torch.randn(3, 64, requires_grad=True)
    low, high = torch.randn(4, 64, requires_grad=True), torch.randn(8, 4, requires_grad=True)
    torch.manual_seed(11)
    kept, share = draw_kept(x.detach(), 0.5)
    assert kept is not None
    torch.manual_seed(11)
    ours = add_low_rank(layer(x), x, low, high, 2.0, 0.5)
    reference = layer(x) + 2.0 / share * ((x * kept) @ low.t()) @ high.t()
    assert torch.allclose(ours, reference, atol=1e-4)
    direction = torch.randn_like(ours)
    for gradient, expected in zip(
        torch.autograd.grad(ours, (x, low, high), direction),
        torch.autograd.grad(reference, (x, low, high), direction),
        strict=True,
    ):
        assert torch.allclose(gradient, expected, atol=1e-3)


@pytest.mark.parametrize("probability", [0.05, 0.5, 0.9])
def test_dropout_drops_its_share_everywhere(probability: float) -> None:
    torch.manual_seed(0)
    kept, share = draw_kept(torch.empty(1000, 101), probability)
    assert kept is not None
    assert share == pytest.approx(1 - probability, abs=1e-4)
    assert float(kept.float().mean()) == pytest.approx(1 - probability, abs=5e-3)
    assert (kept.float().mean(0) - (1 - probability)).abs().max() < 0.08


def test_nothing_is_dropped_in_evaluation(base_of: Bases) -> None:
    base = load_base(base_of("llama"), torch.float32)
    base.model.set_attn_implementation("sdpa")
    model = inject(base.model, rank=4, alpha=8.0, dropout=0.9, target_modules=(), seed=3)
    for matrix in matrices_of(model).values():
        matrix.data.normal_()
    model.eval()
    assert torch.equal(model(input_ids=IDS).logits, model(input_ids=IDS).logits)
    model.train()
    assert not torch.equal(model(input_ids=IDS).logits, model(input_ids=IDS).logits)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_a_4_bit_base_is_near_the_16_bit_one_and_trains(tmp_path: Path, family: str) -> None:
    path = build_base(tmp_path, family, hidden_size=64)
    whole = load_base(path, torch.float32)
    small = load_base(path, torch.float32)
    quantise(small.model, torch.device("cpu"), lambda: None)
    kinds = {type(module).__name__ for module in small.model.modules()}
    assert "Linear4bit" in kinds
    assert "Conv1D" not in kinds
    for layer in (module for module in small.model.modules() if isinstance(module, Linear4bit)):
        scales = layer.weight.quant_state
        assert (scales.quant_type, scales.blocksize, layer.weight.dtype) == ("nf4", 64, torch.uint8)
        assert scales.nested, "the scales are not quantised in their turn"
        assert (scales.absmax.dtype, scales.state2.blocksize) == (torch.uint8, 256)
    for base in (whole, small):
        base.model.set_attn_implementation("sdpa")
    expected = whole.model(input_ids=IDS).logits
    assert (small.model(input_ids=IDS).logits - expected).abs().mean() < 0.25 * expected.std()
    model = inject(small.model, rank=4, alpha=8.0, dropout=0.0, target_modules=(), seed=3)
    _, gradients = losses_and_gradients(model)
    assert gradients
    assert all("lora_" in name for name in gradients)


@pytest.mark.parametrize("inputs", [32, 96, 128])
def test_a_layer_is_quantised_only_where_its_weights_are_read_back(base_of: Bases, inputs: int) -> None:
    model = load_base(base_of("llama"), torch.float32).model
    layer = nn.Linear(inputs, 48, bias=False)
    model.model.layers[0].mlp.up_proj = layer
    x = torch.randn(8, inputs)
    expected = layer(x)
    quantise(model, torch.device("cpu"), lambda: None)
    error = (model.model.layers[0].mlp.up_proj(x) - expected).abs().mean()
    assert error < 0.12 * expected.std()


def test_weights_with_the_scales_of_others_are_not_taken_for_what_they_were() -> None:
    weight = torch.randn(64, 128) * torch.rand(64, 1)
    quantised = Params4bit(weight, quant_type="nf4").to("cpu")
    assert reads_back(quantised, weight)
    quantised.quant_state.absmax = quantised.quant_state.absmax.flip(0)
    assert not reads_back(quantised, weight)


def test_the_output_head_gets_no_adapter(base_of: Bases) -> None:
    base = load_base(base_of("llama"), torch.float32)
    with pytest.raises(TargetModulesError, match="lm_head"):
        inject(base.model, rank=4, alpha=8.0, dropout=0.0, target_modules=("lm_head",), seed=3)


def test_pickled_weights_are_not_loaded(base_of: Bases, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((base_of("llama") / name).read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BaseModelLoadError):
        load_base(tmp_path, torch.float32)
