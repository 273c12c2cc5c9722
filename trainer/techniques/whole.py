"""Full fine-tuning: every weight of the model is trained, and the model is published whole.

Where the base's arithmetic is 32-bit (CPUs without fast bfloat16) the model's own weights are trained. Where
it is 16-bit (CUDA) the model computes with its 16-bit weights, and the optimizer moves 32-bit master copies
of them, in which gradients are summed too: a step of 1e-5 is lost on a 16-bit weight. Either way the memory
is that of 32-bit weights, gradients and two moments; 16-bit arithmetic adds 2 bytes a weight.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.model import Base, load_base
from trainer.model_files import write_model
from trainer.techniques.adapted import PUBLISHED_DTYPE, Adapted


class Whole(Adapted):
    """See the module."""

    def __init__(self, base: Base, device: torch.device) -> None:
        self._base_path = base.path
        self._model: PreTrainedModel = base.model
        self._model.to(device)  # type: ignore[arg-type]  # transformers decorates torch's own method
        self._model.requires_grad_(True)
        own = dict(self._model.named_parameters())
        self._masters = {name: weight for name, weight in own.items() if weight.dtype is torch.float32}
        self._moved = False
        self._copies = {name: weight for name, weight in own.items() if name not in self._masters}
        for name, weight in self._copies.items():
            self._masters[name] = nn.Parameter(weight.detach().float())
            hook = _into(self._masters[name])
            weight.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
        self._begin = self._sums()

    @property
    def model(self) -> PreTrainedModel:
        return self._model

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        return self._masters

    @property
    def keeps_reference(self) -> bool:
        return False

    @property
    def facts(self) -> Mapping[str, object]:
        return {}

    @contextmanager
    def base_alone(self) -> Iterator[None]:
        """Costs nothing before the first `take_over`, for until then the model is the base. Afterwards the
        base is loaded again beside the model."""
        if not self._moved:
            yield
            return
        trained = self._model
        self._model = load_base(self._base_path, trained.dtype).model
        self._model.to(trained.device)  # type: ignore[arg-type]  # as above
        try:
            yield
        finally:
            self._model = trained

    def keep_start(self) -> None:
        """A copy would be a second model: the reference is asked everything before the first step."""

    def reference(self) -> AbstractContextManager[None]:
        return nullcontext()

    def take_over(self) -> None:
        self._moved = True
        with torch.no_grad():
            for name, weight in self._copies.items():
                weight.copy_(self._masters[name])

    def is_unchanged(self) -> bool:
        return self._sums() == self._begin

    def _sums(self) -> list[float]:
        """Of each weight as it would be published: what is left to compare with once the base has moved."""
        with torch.no_grad():
            return [float(one.to(PUBLISHED_DTYPE).sum(dtype=torch.float64)) for one in self._masters.values()]

    def write(self, directory: Path, base_name: str) -> None:
        self._model.to(PUBLISHED_DTYPE)  # type: ignore[arg-type]  # as above
        write_model(self._model, self._base_path, directory)


def _into(master: nn.Parameter) -> Callable[[Tensor], None]:
    """A hook that adds a weight's gradient to that of its master, and frees it."""

    def move(weight: Tensor) -> None:
        assert weight.grad is not None
        if master.grad is None:
            master.grad = weight.grad.float()
        else:
            master.grad.add_(weight.grad)
        weight.grad = None

    return move
