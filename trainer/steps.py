"""One optimizer step and one evaluation: rows to micro-batches to gradients to moved weights.

A step's loss and gradient are means over the whole step, however its examples are cut into forward passes. It
does not know which step comes next or when to evaluate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from trainer.batches import split_by_tokens
from trainer.channel import Channel
from trainer.checkpoints import Progress
from trainer.config import Hyperparameters, Objective, Technique
from trainer.events import FailureReason
from trainer.failures import TrainingError
from trainer.forward import RowLoss
from trainer.model import Base
from trainer.objectives import Criterion, criterion_of
from trainer.optimization import apply_step, make_optimizer
from trainer.pacing import TOKENS_PER_PASS
from trainer.rows import Example
from trainer.techniques import Adapted, adapt

_SEED_STRIDE = 1_000_003
"""Keeps the random numbers of neighbouring seeds and steps apart."""


@dataclass(frozen=True, kw_only=True)
class Trainee:
    """A base that is ready to be trained, and what moves it."""

    adapted: Adapted
    optimizer: torch.optim.AdamW
    row_loss: RowLoss
    criterion: Criterion
    settings: Hyperparameters
    device: torch.device
    dtype: torch.dtype
    """Of the base's arithmetic."""
    packs: bool
    tokens_per_pass: int

    @classmethod
    def of(
        cls,
        base: Base,
        settings: Hyperparameters,
        device: torch.device,
        technique: Technique = Technique.LORA,
        objective: Objective = Objective.SUPERVISED,
    ) -> Self:
        """Prepare the base as technique and settings say. Raises what `techniques.adapt` raises."""
        dtype = base.model.dtype
        adapted = adapt(base, technique, settings, device)
        row_loss = RowLoss(adapted, packed=base.packs, device=device)
        return cls(
            adapted=adapted,
            optimizer=make_optimizer(list(adapted.trained.values()), settings),
            row_loss=row_loss,
            criterion=criterion_of(objective, row_loss, settings),
            settings=settings,
            device=device,
            dtype=dtype,
            packs=base.packs,
            tokens_per_pass=TOKENS_PER_PASS[device.type],
        )

    @property
    def model(self) -> nn.Module:
        """What is switched between training and evaluation."""
        return self.adapted.model

    @property
    def matrices(self) -> dict[str, nn.Parameter]:
        """The weights that are trained, under the names that files use."""
        return self.adapted.trained

    def passes(self, examples: Sequence[Example]) -> list[list[Example]]:
        """The examples in groups for one forward pass each."""
        return split_by_tokens(
            examples,
            self.tokens_per_pass,
            padded=not self.packs,
            virtual_tokens=self.adapted.virtual_tokens,
        )


class Pace:
    """How far and how fast: only steps count, evaluations and checkpoints do not."""

    def __init__(self, start: Progress) -> None:
        self.progress = start
        self._start = start
        self._logged = start

    def add(self, step: int, tokens: int, seconds: float) -> None:
        """Count one step."""
        self.progress = Progress(
            step=step, tokens=self.progress.tokens + tokens, seconds=self.progress.seconds + seconds
        )

    def take_tokens_per_second(self) -> float:
        """Since this was last asked."""
        now, then = self.progress, self._logged
        self._logged = now
        return (now.tokens - then.tokens) / max(now.seconds - then.seconds, 1e-9)

    def seconds_left(self, total_steps: int) -> float:
        """At the mean speed of this attempt."""
        now, start = self.progress, self._start
        return (total_steps - now.step) * (now.seconds - start.seconds) / max(1, now.step - start.step)


def train_step(
    trainee: Trainee, examples: Sequence[Example], step: int, rate: float, channel: Channel
) -> tuple[float, float, int]:
    """One optimizer step; returns mean loss in nats, gradient norm before clipping, and tokens seen.

    Raises TrainingError(NAN_LOSS) before weights are touched, and CancellationError.
    """
    # Randomness of a step follows from its number alone, so that a resumed run drops the same elements.
    torch.manual_seed(trainee.settings.seed * _SEED_STRIDE + step)
    trainee.model.train()
    trainee.adapted.take_over()
    weight = trainee.criterion.weight(examples)
    loss = 0.0
    for micro_batch in trainee.passes(examples):
        channel.check()
        share = trainee.criterion.loss(micro_batch) / weight
        loss += share.item()
        if not math.isfinite(loss):
            raise _not_finite("loss", step)
        share.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    norm = apply_step(
        trainee.optimizer,
        list(trainee.matrices.values()),
        rate=rate,
        max_grad_norm=trainee.settings.max_grad_norm,
    )
    if not math.isfinite(norm):
        raise _not_finite("gradient", step)
    return loss, norm, sum(len(row.token_ids) for example in examples for row in example.rows)


def evaluate(trainee: Trainee, examples: Sequence[Example], channel: Channel) -> float:
    """Mean of the objective over the examples, in nats. Raises CancellationError."""
    trainee.model.eval()
    trainee.adapted.take_over()
    total = 0.0
    with torch.no_grad():
        for micro_batch in trainee.passes(examples):
            channel.check()
            total += trainee.criterion.loss(micro_batch).item()
    mean = total / trainee.criterion.weight(examples)
    if not math.isfinite(mean):
        raise TrainingError(
            FailureReason.NAN_LOSS, "The evaluation loss is not a finite number; lower the learning rate."
        )
    return mean


def _not_finite(what: str, step: int) -> TrainingError:
    return TrainingError(
        FailureReason.NAN_LOSS,
        f"The {what} of step {step + 1} is not a finite number; lower the learning rate or clip gradients.",
    )
