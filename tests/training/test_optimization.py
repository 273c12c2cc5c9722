"""The learning rate of each step, what clipping does, and what decays."""

import math

import pytest
import torch
from torch import nn

from tests.training.conftest import Bases
from trainer.config import Hyperparameters, Schedule, Technique
from trainer.model import load_base
from trainer.optimization import apply_step, learning_rate, make_optimizer
from trainer.steps import Trainee


def rates(schedule: Schedule, *, warmup_ratio: float, total_steps: int = 10) -> list[float]:
    settings = Hyperparameters(learning_rate=1.0, schedule=schedule, warmup_ratio=warmup_ratio)
    return [learning_rate(settings, step, total_steps) for step in range(total_steps)]


def test_a_constant_rate_is_reached_in_equal_parts_and_stays() -> None:
    assert rates(Schedule.CONSTANT, warmup_ratio=0.3) == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 7)


def test_a_linear_rate_falls_in_equal_parts() -> None:
    assert rates(Schedule.LINEAR, warmup_ratio=0.0) == pytest.approx([1 - step / 10 for step in range(10)])


def test_a_cosine_rate_is_half_way_down_in_the_middle() -> None:
    found = rates(Schedule.COSINE, warmup_ratio=0.0)
    assert found[0] == 1.0
    assert found[5] == pytest.approx(0.5)
    assert found[9] == pytest.approx(0.5 * (1 + math.cos(0.9 * math.pi)))


def test_a_run_of_one_step_has_a_rate_above_zero() -> None:
    assert rates(Schedule.COSINE, warmup_ratio=0.5, total_steps=1)[0] > 0


def test_gradients_are_clipped_to_the_norm_and_zero_means_not() -> None:
    for max_grad_norm, expected in ((0.5, 0.5), (0.0, 50.0), (100.0, 50.0)):
        weight = nn.Parameter(torch.zeros(2))
        optimizer = torch.optim.SGD([weight], lr=0.0)
        weight.grad = torch.tensor([30.0, 40.0])
        assert apply_step(optimizer, [weight], rate=1.0, max_grad_norm=max_grad_norm) == pytest.approx(50.0)
        assert float(weight.detach().norm()) == pytest.approx(expected, rel=1e-4)
        assert weight.grad is None


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = make_optimizer([weight], Hyperparameters())
    weight.grad = torch.tensor([math.nan, 1.0])
    assert math.isnan(apply_step(optimizer, [weight], rate=1.0, max_grad_norm=1.0))
    assert weight.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("technique", [Technique.LORA, Technique.PROMPT_TUNING, Technique.FULL])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_matrices_decay_and_biases_and_the_gains_of_norms_do_not(
    base_of: Bases, family: str, technique: Technique
) -> None:
    base = load_base(base_of(family), torch.float32)
    trainee = Trainee.of(base, Hyperparameters(weight_decay=0.5), torch.device("cpu"), technique)
    for weight in trainee.matrices.values():
        weight.data.fill_(1.0)
        weight.grad = torch.zeros_like(weight)

    apply_step(trainee.optimizer, list(trainee.matrices.values()), rate=0.1, max_grad_norm=1.0)

    vectors = [name for name in trainee.matrices if is_bias_or_gain(name)]
    assert bool(vectors) == (technique is Technique.FULL)
    for name, weight in trainee.matrices.items():
        expected = torch.full_like(weight, 1.0 if name in vectors else 0.95)
        assert torch.allclose(weight, expected), name


def is_bias_or_gain(name: str) -> bool:
    """By the names of transformers: norms are called norm, or ln and a number."""
    return name.endswith(".bias") or "norm" in name or ".ln_" in name
