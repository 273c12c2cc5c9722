"""What steps and evaluations need of an objective, whichever it is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from trainer.rows import Example


@dataclass(frozen=True, kw_only=True)
class Rewards:
    """How a model that learns from preferences sees its pairs."""

    reward_margin: float
    """Mean of beta * (how much likelier the chosen answer became - how much likelier the rejected one)."""
    reward_accuracy: float
    """Part of the pairs whose margin is above 0."""


class Criterion(ABC):
    """A sum over examples, and what to divide it by."""

    @abstractmethod
    def weight(self, examples: Sequence[Example]) -> int:
        """What the sum over these examples is divided by to get their mean."""

    @abstractmethod
    def loss(self, examples: Sequence[Example]) -> Tensor:
        """The sum, a 32-bit scalar that can be differentiated; the examples go through in one pass."""

    def prepare(  # noqa: B027  (supervised needs nothing)
        self, passes: Sequence[Sequence[Example]], between: Callable[[], None], *, continues: bool = False
    ) -> None:
        """Measure and keep what has to be known of the model before the first step of all, also where a
        checkpoint is loaded afterwards. A pass holds what fits in one, and `between` is called before each;
        `continues`: the model is that of a version, and not the base."""

    def take_rewards(self, *, training: bool) -> Rewards | None:
        """Over the examples of training, or of evaluation, since this was last asked for; None where there
        are no preferences."""
        return None
