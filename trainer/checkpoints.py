"""Checkpoints: everything a later attempt needs to go on as if nothing had happened, whole or not at all.

A checkpoint is a directory `step-<n>`: the adapter's matrices and the optimizer's moments as safetensors,
the step as JSON, and a manifest with the SHA-256 of each. Order of rows and random numbers follow from seed
and step and need no saving. Never pickled. It does not know when to save.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from trainer.files import sync_directory, write_durably

KEPT = 2
"""How many checkpoints stay: the newest, and the one before in case the newest is damaged."""

_MANIFEST = "manifest.json"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands after a step."""

    step: int
    """Optimizer steps done."""
    tokens: int
    """Tokens that went through the model."""
    seconds: float
    """Time of training, over all attempts."""

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
        contents = {
            "adapter.safetensors": save({name: matrix.detach() for name, matrix in matrices.items()}),
            "optimizer.safetensors": save(_moments(matrices, optimizer)),
            "state.json": json.dumps(
                {
                    "fingerprint": self._fingerprint,
                    "step": progress.step,
                    "tokens": progress.tokens,
                    "seconds": progress.seconds,
                }
            ).encode(),
        }
        self._directory.mkdir(parents=True, exist_ok=True)
        beside = self._directory / f".writing-{os.getpid()}"
        shutil.rmtree(beside, ignore_errors=True)
        listing = write_durably(beside / "content", contents)
        # The manifest comes last and alone: a directory without a right one is no checkpoint.
        write_durably(beside / "manifest", {_MANIFEST: json.dumps(listing).encode()})
        (beside / "manifest" / _MANIFEST).rename(beside / "content" / _MANIFEST)
        sync_directory(beside / "content")
        final = self._directory / f"step-{progress.step:08d}"
        shutil.rmtree(final, ignore_errors=True)  # a damaged one of an earlier attempt
        (beside / "content").rename(final)
        sync_directory(self._directory)
        shutil.rmtree(beside)
        for old in self._newest_first()[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)

    def resume(
        self, matrices: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> Progress | None:
        """Load the newest whole checkpoint into adapter and optimizer; None if there is none."""
        for directory in self._newest_first():
            try:
                contents = _read_whole(directory)
                state = json.loads(contents["state.json"])
                if state["fingerprint"] != self._fingerprint:
                    raise ValueError("it belongs to another run")
                progress = Progress(
                    step=int(state["step"]), tokens=int(state["tokens"]), seconds=float(state["seconds"])
                )
                adapter = load(contents["adapter.safetensors"])
                moments = load(contents["optimizer.safetensors"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                print(f"checkpoint {directory} is ignored: {error!r}", file=sys.stderr)
                continue
            _restore(matrices, optimizer, adapter, moments)
            return progress
        return None

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


def _read_whole(directory: Path) -> dict[str, bytes]:
    """Contents of a checkpoint's files, each as the manifest describes it. Raises ValueError, OSError."""
    listing = json.loads((directory / _MANIFEST).read_bytes())
    contents = {}
    for name in ("adapter.safetensors", "optimizer.safetensors", "state.json"):
        content = (directory / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != listing[name]["sha256"]:
            raise ValueError(f"{name} is not as it was written")
        contents[name] = content
    return contents
