"""Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290), with the sigmoid loss.

For a pair, -log sigmoid(beta * margin), where the margin is by how much more the chosen answer's
log-probability rose above the reference's than the rejected one's. The reference is the model that
training began with: the base, or the version that the run goes on from. Either is there beside what is
trained, without a second model. What it says of a pair never changes and is kept.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from trainer.forward import RowLoss
from trainer.objectives.criterion import Criterion, Rewards
from trainer.rows import Example


class Preference(Criterion):
    """The mean is over pairs."""

    def __init__(self, row_loss: RowLoss, beta: float) -> None:
        self._row_loss = row_loss
        self._beta = beta
        self._references: dict[Example, Tensor] = {}
        """[2] of each pair seen: how unlikely the reference finds chosen and rejected answer, in nats."""
        self._margins: dict[bool, list[Tensor]] = {True: [], False: []}
        """Of training and of evaluation."""

    def weight(self, examples: Sequence[Example]) -> int:
        return len(examples)

    def prepare(
        self, passes: Sequence[Sequence[Example]], between: Callable[[], None], *, continues: bool = False
    ) -> None:
        """Measures nothing where the reference stays beside what is trained: each pair is then measured when
        it comes."""
        adapted = self._row_loss.adapted
        if continues:
            adapted.keep_start()
        if not adapted.keeps_reference:
            for examples in passes:
                between()
                self._refer(examples)

    def loss(self, examples: Sequence[Example]) -> Tensor:
        reference = self._refer(examples)  # [pairs, 2]
        risen = reference - self._unlikelihood(examples)
        margins = self._beta * (risen[:, 0] - risen[:, 1])
        self._margins[self._row_loss.adapted.model.training].append(margins.detach())
        return -logsigmoid(margins).sum()

    def take_rewards(self, *, training: bool) -> Rewards | None:
        if not self._margins[training]:
            return None
        margins = torch.cat(self._margins[training])
        self._margins[training].clear()
        return Rewards(
            reward_margin=margins.mean().item(), reward_accuracy=(margins > 0).float().mean().item()
        )

    def _refer(self, examples: Sequence[Example]) -> Tensor:
        unseen = [example for example in examples if example not in self._references]
        if unseen:
            adapted = self._row_loss.adapted
            was_training = adapted.model.training
            adapted.model.eval()
            with torch.no_grad(), adapted.reference():
                self._references.update(zip(unseen, self._unlikelihood(unseen), strict=True))
            adapted.model.train(was_training)
        return torch.stack([self._references[example] for example in examples])

    def _unlikelihood(self, examples: Sequence[Example]) -> Tensor:
        """[pairs, 2], of the chosen and the rejected answer by the model as it is now, in nats."""
        return self._row_loss.of_rows([row for example in examples for row in example.rows]).view(-1, 2)
