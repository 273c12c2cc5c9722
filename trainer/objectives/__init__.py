"""Objectives: what a step makes smaller, over rows or over pairs of rows.

The loop, the techniques and the optimizer are the same for every objective; what differs is behind
`Criterion`. Nothing here knows steps or files.
"""

from trainer.config import Hyperparameters, Objective
from trainer.forward import RowLoss
from trainer.objectives.criterion import Criterion
from trainer.objectives.preference import Preference
from trainer.objectives.supervised import Supervised

__all__ = ["Criterion", "Preference", "Supervised", "criterion_of"]


def criterion_of(objective: Objective, row_loss: RowLoss, settings: Hyperparameters) -> Criterion:
    """The objective, ready to be computed with a model."""
    match objective:
        case Objective.SUPERVISED:
            return Supervised(row_loss)
        case Objective.PREFERENCE:
            return Preference(row_loss, settings.dpo_beta)
