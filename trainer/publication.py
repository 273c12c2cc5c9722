"""Publication: an adapter becomes an immutable directory named by its content, whole or not at all.

`<artifacts>/<digest>/` holds PEFT's two files and MANIFEST.json; the digest is the SHA-256 of the manifest,
which holds the SHA-256 of the files. What would be useless to serve is refused. It does not know how
training went.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save
from torch import Tensor, nn

from trainer.adapter import ADAPTER, target_modules_of
from trainer.canary import CanarySequence
from trainer.channel import Channel
from trainer.config import JobFile
from trainer.events import FailureReason
from trainer.failures import TrainingError
from trainer.files import sync_directory, write_durably

FORMAT = 1
MANIFEST = "MANIFEST.json"
PUBLISHED_DTYPE = torch.bfloat16
"""What engines serve adapters in."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What was published."""

    digest: str
    size_bytes: int


def round_as_published(matrices: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The matrices as they will be saved; the model's own are rounded to the same values.

    Raises TrainingError if they are no adapter: none at all, not finite, or without any effect.
    """
    saved = {
        name: matrix.detach().to("cpu", PUBLISHED_DTYPE).contiguous() for name, matrix in matrices.items()
    }
    if not saved:
        raise TrainingError(FailureReason.INTERNAL, "The adapter has no weights.")
    if not all(bool(tensor.isfinite().all()) for tensor in saved.values()):
        raise TrainingError(
            FailureReason.NAN_LOSS, "The adapter's weights are not finite numbers; lower the learning rate."
        )
    if not any(bool(tensor.any()) for name, tensor in saved.items() if ".lora_B." in name):
        raise TrainingError(
            FailureReason.INTERNAL,
            "Training changed nothing, so the adapter would have no effect; raise the learning rate.",
        )
    for name, matrix in matrices.items():
        matrix.data.copy_(saved[name])
    return saved


def publish(
    job: JobFile,
    channel: Channel,
    *,
    model: PeftModel,
    saved: Mapping[str, Tensor],
    rendering: Mapping[str, str | int],
    canary: Sequence[CanarySequence],
    metrics: Mapping[str, float | int | None],
) -> Artifact:
    """Write everything beside, force it to disk, and rename it into place.

    Raises CancellationError if the run was asked to stop before the rename, and OSError.
    """
    staged = job.work_path / f"staged-{job.attempt}-{os.getpid()}"
    shutil.rmtree(staged, ignore_errors=True)
    contents = {
        "adapter_config.json": _adapter_config(model, job),
        "adapter_model.safetensors": save(dict(saved), metadata={"format": "pt"}),
    }
    files = write_durably(staged, contents)
    settings = job.hyperparameters
    manifest = _json(
        {
            "format": FORMAT,
            "job_id": job.job_id,
            "adapter_id": job.adapter_id,
            "technique": job.technique,
            "rank": settings.rank,
            "alpha": settings.alpha,
            "target_modules": target_modules_of(model),
            "base_model": {"name": job.base_model.name, "revision": job.base_model.revision},
            "rendering": dict(rendering),
            "dataset_sha256": job.dataset_sha256,
            "hyperparameters": asdict(settings),
            "files": files,
            "canary": {"sequences": [asdict(sequence) for sequence in canary]},
            "metrics": dict(metrics),
            "create_time": channel.clock(),
        }
    )
    digest = hashlib.sha256(manifest).hexdigest()
    _add(staged, MANIFEST, manifest)
    channel.begin_publication()
    job.artifacts_path.mkdir(parents=True, exist_ok=True)
    staged.rename(job.artifacts_path / digest)
    sync_directory(job.artifacts_path)
    return Artifact(
        digest=digest, size_bytes=len(manifest) + sum(len(content) for content in contents.values())
    )


def _add(directory: Path, name: str, content: bytes) -> None:
    with (directory / name).open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(directory)


def _adapter_config(model: PeftModel, job: JobFile) -> bytes:
    """PEFT's configuration as PEFT writes it, but with a name for the base and everything in order."""
    fields = {
        name: sorted(value) if isinstance(value, set) else value
        for name, value in model.peft_config[ADAPTER].to_dict().items()
    }
    return _json(fields | {"base_model_name_or_path": job.base_model.name, "inference_mode": True})


def _json(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"
