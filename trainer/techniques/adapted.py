"""What training, canary and publication need of a technique, whichever it is."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from trainer.batches import Batch

PUBLISHED_DTYPE = torch.bfloat16
"""What engines serve adapters and models in."""


def as_published(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of weights in main memory, in the format in which they are published."""
    return {name: weight.detach().to("cpu", PUBLISHED_DTYPE).contiguous() for name, weight in weights.items()}


class Adapted(ABC):
    """A base model with what is trained of it or beside it."""

    _start: Mapping[str, Tensor] | None = None
    """What `trained` held when `keep_start` was called."""

    @property
    @abstractmethod
    def model(self) -> nn.Module:
        """What is switched between training and evaluation."""

    @property
    @abstractmethod
    def trained(self) -> dict[str, nn.Parameter]:
        """The 32-bit weights that the optimizer moves, under the names that files use."""

    @property
    def virtual_tokens(self) -> int:
        """Positions in front of every row that have no token; 0 while the base is alone."""
        return 0

    @property
    def front(self) -> Tensor | None:
        """[virtual tokens, hidden], what stands in front of every row; None where nothing does."""
        return None

    @property
    def rank(self) -> int:
        """Of the adapter's matrices; 0 where there are none."""
        return 0

    @property
    def keeps_reference(self) -> bool:
        """Whether `reference` may be entered at any time; else only before the first step."""
        return True

    @property
    @abstractmethod
    def facts(self) -> Mapping[str, object]:
        """What the manifest says about this technique alone."""

    def logits(self, batch: Batch) -> Tensor:
        """[rows, columns, vocabulary], of the positions that `batch.predicting` names."""
        return self._logits_of(batch, batch.inputs)

    def _logits_of(self, batch: Batch, inputs: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = self.model(**inputs, logits_to_keep=batch.predicting, use_cache=False).logits
        return logits

    @abstractmethod
    def base_alone(self) -> AbstractContextManager[None]:
        """Within this context `logits` are those of the base as it was before training."""

    def keep_start(self) -> None:
        """Take the model as it is now for what training begins with, in place of the base."""
        self._start = {name: weight.detach().clone() for name, weight in self.trained.items()}

    def reference(self) -> AbstractContextManager[None]:
        """Within this context `logits` are those of what training begins with, and no gradients are taken."""
        return self.base_alone() if self._start is None else self._with(self._start)

    @contextmanager
    def _with(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        now = {name: weight.data for name, weight in self.trained.items()}
        self._hold(tensors)
        try:
            yield
        finally:
            self._hold(now)

    def _hold(self, tensors: Mapping[str, Tensor]) -> None:
        for name, weight in self.trained.items():
            weight.data = tensors[name]

    def take_over(self) -> None:  # noqa: B027  (most techniques compute with the very weights that are moved)
        """Let the model compute with what `trained` holds now; called before a series of forward passes."""

    @abstractmethod
    def is_unchanged(self) -> bool:
        """Whether training left no trace in the rounded weights."""

    @abstractmethod
    def write(self, directory: Path, base_name: str) -> None:
        """Write what is published, manifest aside, into an existing directory. Raises OSError.

        Comes last and after `round_to_published`: the model cannot be trained any further.
        """

    def round_to_published(self) -> None:
        """Round every trained weight to a value that the published format holds."""
        for weight in self.trained.values():
            weight.data.copy_(weight.data.to(PUBLISHED_DTYPE))
        self.take_over()
