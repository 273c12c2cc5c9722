"""Checkpoints: everything a later attempt needs to go on as if nothing had happened, whole or not at all.

A checkpoint is a directory `step-<n>`: the trained tensors and the optimizer's moments as safetensors, the
step and the loss curve as JSON. Beside it lies the state of the best step so far, `best-<n>`: the trained
tensors alone, in the type in which they are published. A checkpoint whose best state is damaged does not
count either. Order of rows and random numbers follow from seed and step and need no saving. Never pickled.
It does not know when to save, nor what makes a step the best.
"""

import dataclasses
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from trainer.curve import Curve
from trainer.techniques.adapted import as_published
from trainer.whole import read_whole, write_whole

KEPT = 2
"""How many checkpoints stay: the newest, and the one before in case the newest is damaged."""

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_ADAPTER, _OPTIMIZER, _STATE, _BEST = (
    "adapter.safetensors",
    "optimizer.safetensors",
    "state.json",
    "best.safetensors",
)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands after a step."""

    step: int
    """Optimizer steps done."""
    tokens: int
    """Tokens that went through the model."""
    seconds: float
    """Time of training, over all attempts."""
    curve: Curve = field(default_factory=Curve)
    """Losses so far."""
    best_step: int = 0
    """Step whose state `Checkpoints.save_best` keeps; 0 before the first evaluation."""

    @classmethod
    def none(cls) -> "Progress":
        """Where a run begins."""
        return cls(step=0, tokens=0, seconds=0.0)


class Checkpoints:
    """The checkpoints of one job, below one directory.

    `fingerprint` names what the run is made of (data, base, settings); checkpoints of another run are
    ignored.
    """

    def __init__(self, directory: Path, fingerprint: str) -> None:
        self._directory = directory
        self._fingerprint = fingerprint

    def save(
        self, progress: Progress, matrices: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> None:
        """Write a checkpoint, then forget all but the newest two. Raises OSError."""
        state = {"fingerprint": self._fingerprint, **dataclasses.asdict(progress)}
        write_whole(
            self._directory / f"step-{progress.step:08d}",
            {
                _ADAPTER: save({name: matrix.detach() for name, matrix in matrices.items()}),
                _OPTIMIZER: save(_moments(matrices, optimizer)),
                _STATE: json.dumps(state).encode(),
            },
        )
        for old in self._newest_first()[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)

    def save_best(self, step: int, matrices: Mapping[str, nn.Parameter]) -> None:
        """Keep the state of this step as the best one. Raises OSError.

        Those that kept checkpoints call their best stay too: a run that goes on there still needs them.
        """
        write_whole(self._best_path(step), {_BEST: save(as_published(matrices))})
        needed = {self._best_path(step)}
        for directory in self._newest_first():
            try:
                needed.add(self._best_path(self._progress(read_whole(directory, [_STATE])[_STATE]).best_step))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # damaged, so nobody goes on there
        for old in set(self._directory.glob("best-*")) - needed:
            shutil.rmtree(old, ignore_errors=True)

    def restore_best(self, step: int, matrices: Mapping[str, nn.Parameter]) -> None:
        """Put the state of the best step into the trained tensors. Raises OSError, ValueError."""
        best = load(read_whole(self._best_path(step), [_BEST])[_BEST])
        for name, matrix in matrices.items():
            matrix.data.copy_(best[name])

    def resume(
        self, matrices: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> Progress | None:
        """Load the newest whole checkpoint into adapter and optimizer; None if there is none."""
        for directory in self._newest_first():
            try:
                contents = read_whole(directory, [_ADAPTER, _OPTIMIZER, _STATE])
                progress = self._progress(contents[_STATE])
                if progress.best_step:
                    read_whole(self._best_path(progress.best_step), [_BEST])
                adapter = load(contents[_ADAPTER])
                moments = load(contents[_OPTIMIZER])
            except (OSError, ValueError, KeyError, TypeError) as error:
                print(f"checkpoint {directory} is ignored: {error!r}", file=sys.stderr)
                continue
            _restore(matrices, optimizer, adapter, moments)
            return progress
        return None

    def _progress(self, state: bytes) -> Progress:
        """Raises ValueError, KeyError or TypeError where it is not that of this run."""
        fields = json.loads(state)
        if fields.pop("fingerprint") != self._fingerprint:
            raise ValueError("it belongs to another run")
        return Progress(**{**fields, "curve": Curve.from_json(fields["curve"])})

    def _best_path(self, step: int) -> Path:
        return self._directory / f"best-{step:08d}"

    def _newest_first(self) -> list[Path]:
        return sorted(self._directory.glob("step-*"), reverse=True)


def _moments(matrices: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}.{moment}": optimizer.state[matrix][moment]
        for name, matrix in matrices.items()
        for moment in _MOMENTS
    }


def _restore(
    matrices: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    adapter: Mapping[str, Tensor],
    moments: Mapping[str, Tensor],
) -> None:
    for name, matrix in matrices.items():
        matrix.data.copy_(adapter[name])
        # The fused optimizer counts its steps in a tensor beside the weights.
        optimizer.state[matrix] = {
            moment: moments[f"{name}.{moment}"].to(matrix.device) for moment in _MOMENTS
        }
