"""The start of a run that continues another: the weights of a published version instead of fresh ones.

Any technique: what counts is that the files hold every trained weight under its name and in its shape. The
version is read only as it was published, digest by digest.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from torch import nn

from trainer.config import JobFile, StartVersion
from trainer.events import FailureReason
from trainer.failures import TrainingError
from trainer.publication import MANIFEST


def begin_at(start: StartVersion, job: JobFile, trained: Mapping[str, nn.Parameter]) -> None:
    """Put the weights of `start` into the trained ones. Raises TrainingError saying what does not fit."""
    try:
        files = _weight_files(start, job)
        missing = dict(trained)
        for path in files:
            with safe_open(path, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118  (it is no mapping)
                    if name not in missing:
                        raise _cannot(start, f"its {name} is not trained here")
                    tensor, weight = tensors.get_tensor(name), missing.pop(name)
                    if tensor.shape != weight.shape:
                        raise _cannot(start, f"its {name} is {list(tensor.shape)}, not {list(weight.shape)}")
                    weight.data.copy_(tensor)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _cannot(start, "its files are not as they were published") from error
    if missing:
        raise _cannot(start, f"it has no {min(missing)}")


def _weight_files(start: StartVersion, job: JobFile) -> list[Path]:
    """Files of weights, each checked against the manifest, and the manifest against the name."""
    content = (start.path / MANIFEST).read_bytes()
    if hashlib.sha256(content).hexdigest() != start.path.name:
        raise ValueError("the manifest is another one")
    manifest = json.loads(content)
    revision = manifest["base_model"]["revision"]
    if revision != job.base_model.revision:
        raise _cannot(
            start,
            f"it was trained on revision {revision[:20]} of the base, "
            f"and this is {job.base_model.revision[:20]}",
        )
    if manifest["technique"] != job.technique:
        raise _cannot(start, f"it was trained with {manifest['technique']}, not {job.technique}")
    paths = []
    for name, entry in manifest["files"].items():
        if name.endswith(".safetensors"):
            with (start.path / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                    raise ValueError(f"{name} is not as it was published")
            paths.append(start.path / name)
    return paths


def _cannot(start: StartVersion, reason: str) -> TrainingError:
    return TrainingError(
        FailureReason.BASE_MODEL_ERROR, f"Training cannot start from {start.name}: {reason}."
    )
