"""How weights move: the learning rate of each step, the optimizer, and clipping. It does not know the
model."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from trainer.config import Hyperparameters, Schedule


def learning_rate(settings: Hyperparameters, step: int, total_steps: int) -> float:
    """The rate of a step, counted from 0.

    The warm-up rises in equal parts that begin above 0, since a step at rate 0 would be wasted (and would
    be the whole of a run of one step). What follows is as in transformers' schedules.
    """
    warmup_steps = math.ceil(settings.warmup_ratio * total_steps)
    if step < warmup_steps:
        return settings.learning_rate * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    match settings.schedule:
        case Schedule.COSINE:
            return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        case Schedule.LINEAR:
            return settings.learning_rate * (1 - progress)
        case Schedule.CONSTANT:
            return settings.learning_rate


def make_optimizer(parameters: Sequence[nn.Parameter], settings: Hyperparameters) -> torch.optim.AdamW:
    """AdamW with torch's usual betas and epsilon; the rate is set before every step.

    Vectors (biases, the gains of norms) do not decay: towards 0 is not towards simple for them.
    """
    groups = [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=settings.learning_rate, fused=True
    )


def apply_step(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], *, rate: float, max_grad_norm: float
) -> float:
    """Clip (0: not at all), step and forget the gradients; returns their L2 norm before clipping.

    With a norm that is not finite the weights are left as they are.
    """
    norm = float(nn.utils.clip_grad_norm_(parameters, max_grad_norm or math.inf))
    if math.isfinite(norm):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm
