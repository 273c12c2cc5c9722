"""Supervised fine-tuning and continued pre-training: cross-entropy of the tokens that should follow."""

from collections.abc import Sequence

from torch import Tensor

from trainer.forward import RowLoss
from trainer.objectives.criterion import Criterion
from trainer.rows import Example


class Supervised(Criterion):
    """The mean is over trained tokens, so that long answers count as what they are."""

    def __init__(self, row_loss: RowLoss) -> None:
        self._row_loss = row_loss

    def weight(self, examples: Sequence[Example]) -> int:
        return sum(row.trained_tokens for example in examples for row in example.rows)

    def loss(self, examples: Sequence[Example]) -> Tensor:
        return self._row_loss([row for example in examples for row in example.rows])
