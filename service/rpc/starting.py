"""What a job takes over from the version that it starts from, and what it may not change about it.

Weights only mean the same where shape, place and scale of the adapter are the same. Pure functions.
"""

from collections.abc import Mapping
from typing import Any

from hotlora.v1 import tuning_service_pb2 as pb
from service.errors import FieldViolation
from service.registry import JobRow
from trainer.config import ALL_LINEAR, SETTINGS_OF, Hyperparameters, Technique

TAKEN_OVER = ("rank", "alpha", "target_modules", "use_rslora", "virtual_tokens")
"""Hyperparameters that decide what the weights of a version mean."""


def taken_over(start: JobRow) -> dict[str, Any]:
    """Settings of the job that made the version, as far as its technique reads them."""
    return {
        name: getattr(start.hyperparameters, name)
        for name in TAKEN_OVER
        if start.technique in SETTINGS_OF[name]
    }


def differences(
    start: JobRow, *, base_model: str, technique: Technique, settings: Hyperparameters
) -> list[FieldViolation]:
    """Why a job cannot start from what the job `start` made."""
    version = f"{start.adapter_id}@{start.version_number}"
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
        for name, value in _comparable(taken_over(start)).items()
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
