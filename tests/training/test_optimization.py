"""The learning rate of each step, and what clipping does."""

import math

import pytest
import torch
from torch import nn

from trainer.config import Hyperparameters, Schedule
from trainer.optimization import apply_step, learning_rate, make_optimizer


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
