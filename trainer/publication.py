"""Publication: what was trained becomes an immutable directory named by its content, whole or not at all.

`<artifacts>/<digest>/` holds what the technique writes (PEFT's two files, or a whole model) and
MANIFEST.json; the digest is the SHA-256 of the manifest, which holds the SHA-256 of the files. What would be
useless to serve is refused. It does not know how training went.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from trainer.canary import CanarySequence
from trainer.channel import Channel
from trainer.config import JobFile
from trainer.events import FailureReason, Stage
from trainer.failures import TrainingError
from trainer.files import json_bytes, seal, sync_directory
from trainer.techniques import Adapted

FORMAT = 1
MANIFEST = "MANIFEST.json"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What was published."""

    digest: str
    size_bytes: int


def round_as_published(adapted: Adapted) -> None:
    """Round the trained weights to what will be saved.

    Raises TrainingError if they are worth nothing: none at all, not finite, or without any effect.
    """
    if not adapted.trained:
        raise TrainingError(FailureReason.INTERNAL, "The adapter has no weights.")
    adapted.round_to_published()
    if not all(bool(weight.isfinite().all()) for weight in adapted.trained.values()):
        raise TrainingError(
            FailureReason.NAN_LOSS, "The trained weights are not finite numbers; lower the learning rate."
        )
    if adapted.is_unchanged():
        raise TrainingError(
            FailureReason.INTERNAL,
            "Training changed nothing, so the result would have no effect; raise the learning rate.",
        )


def publish(
    job: JobFile,
    channel: Channel,
    *,
    adapted: Adapted,
    rendering: Mapping[str, str | int],
    canary: Sequence[CanarySequence],
    metrics: Mapping[str, float | int | str | None],
) -> Artifact:
    """Write everything beside, force it to disk, and rename it into place.

    Raises CancellationError if the run was asked to stop before the rename, and OSError.
    """
    staged = job.work_path / f"staged-{job.attempt}-{os.getpid()}"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    with channel.working_on(Stage.WRITING):
        adapted.write(staged, job.base_model.name)
    with channel.working_on(Stage.SEALING):
        files = seal(staged)
    settings = job.hyperparameters
    manifest = json_bytes(
        {
            "format": FORMAT,
            "job_id": job.job_id,
            "adapter_id": job.adapter_id,
            "technique": job.technique,
            "rank": adapted.rank,
            **adapted.facts,
            "base_model": {"name": job.base_model.name, "revision": job.base_model.revision},
            "rendering": dict(rendering),
            "dataset_sha256": job.dataset_sha256,
            "start_version": _lineage(job),
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
        digest=digest, size_bytes=len(manifest) + sum(int(entry["size"]) for entry in files.values())
    )


def _lineage(job: JobFile) -> dict[str, str] | None:
    """Which version the run began with; None for fresh weights."""
    start = job.start_version
    return None if start is None else {"name": start.name, "digest": start.path.name}


def _add(directory: Path, name: str, content: bytes) -> None:
    with (directory / name).open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(directory)
