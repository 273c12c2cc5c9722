"""What a job takes over from the version that it starts from, and what it may not change about it.

Weights only mean the same where shape, place and scale of the adapter are the same. Pure functions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from hotlora.v1 import tuning_service_pb2 as pb
from service.artifacts import ArtifactCorrupt
from service.errors import FieldViolation
from service.jsonshape import Json, array, count, number, text
from service.registry import JobRow, VersionRow
from trainer.config import ALL_LINEAR, SETTINGS_OF, Hyperparameters, Technique

TAKEN_OVER = ("rank", "alpha", "target_modules", "use_rslora", "virtual_tokens")
"""Hyperparameters that decide what the weights of a version mean."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A version as a beginning."""

    model: str
    """The version's name in the engine."""
    base_model: str
    technique: Technique
    taken_over: Mapping[str, Any]
    """Of TAKEN_OVER what its technique reads."""

    @classmethod
    def of_job(cls, version: VersionRow, job: JobRow) -> Self:
        """The version that the job made."""
        settings = {
            name: getattr(job.hyperparameters, name)
            for name in TAKEN_OVER
            if job.technique in SETTINGS_OF[name]
        }
        return cls(
            model=version.model, base_model=job.base_model, technique=job.technique, taken_over=settings
        )

    @classmethod
    def of_import(cls, version: VersionRow, manifest: Json) -> Self:
        """A version that was imported, of which the manifest says all. Raises ArtifactCorrupt."""
        try:
            settings = {
                "rank": count(manifest["rank"]),
                "alpha": number(manifest["alpha"]),
                "target_modules": tuple(text(name) for name in array(manifest["target_modules"])),
                "use_rslora": manifest["use_rslora"] is True,
            }
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactCorrupt(f"MANIFEST.json of {version.model} is malformed: {error}") from error
        return cls(
            model=version.model,
            base_model=version.base_model,
            technique=version.technique,
            taken_over=settings,
        )


def differences(
    start: Start, *, base_model: str, technique: Technique, settings: Hyperparameters
) -> list[FieldViolation]:
    """Why a job cannot start from a version."""
    version = start.model
    if base_model != start.base_model:
        return [
            FieldViolation(
                field="start_version",
                description=f"{version} was trained on base model {start.base_model!r}, not {base_model!r}",
            )
        ]
    if technique != start.technique:
        return [
            FieldViolation(
                field="technique",
                description=f"must be {start.technique}, with which start_version {version} was trained, "
                f"got {technique}",
            )
        ]
    mine = _comparable({name: getattr(settings, name) for name in TAKEN_OVER})
    return [
        FieldViolation(
            field=f"hyperparameters.{name}",
            description=f"must be {_shown(value)}, as in start_version {version} (leave it out, and it is), "
            f"got {_shown(mine[name])}",
        )
        for name, value in _comparable(start.taken_over).items()
        if mine[name] != value
    ]


def unread_prompt(request: pb.CreateTuningJobRequest) -> list[FieldViolation]:
    """A text that virtual tokens should begin as, where they begin as those of a version."""
    if not request.hyperparameters.initial_prompt:
        return []
    return [
        FieldViolation(
            field="hyperparameters.initial_prompt",
            description=f"contradicts start_version {request.start_version}, whose virtual tokens training "
            "begins with; leave one of the two out",
        )
    ]


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    modules = frozenset(settings.get("target_modules", ())) - {ALL_LINEAR}
    return {**settings, "target_modules": modules} if "target_modules" in settings else dict(settings)


def _shown(value: object) -> str:
    if isinstance(value, frozenset):
        return ", ".join(sorted(value)) or ALL_LINEAR
    return f"{value:g}" if isinstance(value, float) else str(value)
