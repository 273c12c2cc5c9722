"""A plan: for one model, one dataset and one device what each technique needs, and which one to take.

A pure function of numbers; whoever has files, datasets and probes turns them into numbers first.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from trainer.config import Hyperparameters, Technique
from trainer.pacing import TOKENS_PER_PASS, row_limit
from trainer.planning.advice import Recommendation, recommend
from trainer.planning.calibration import Calibration, calibrated
from trainer.planning.duration import (
    Course,
    Data,
    Speed,
    answering,
    course,
    seconds,
    speed_like,
    speed_of_device,
)
from trainer.planning.memory import (
    ERROR_SHARE,
    Footing,
    Line,
    Load,
    largest_pass,
    memory,
    total,
    trained_parameters,
)
from trainer.planning.settings import MAX_SEQUENCE_LENGTH, Choice, choose, complete
from trainer.planning.shape import ModelShape


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where it would be trained."""

    footing: Footing
    memory_bytes: int
    """What it has."""
    available_bytes: int
    """What a run may take of it now."""
    operations_per_second: float = 0.0
    """Floating-point operations that it does in matrix products; 0 means not known."""


@dataclass(frozen=True, kw_only=True)
class TechniquePlan:
    """What one technique needs."""

    technique: Technique
    lines: tuple[Line, ...]
    total_bytes: int
    fits: bool
    trained_parameters: int
    choices: tuple[Choice, ...]
    settings: Hyperparameters
    course: Course
    speed: Speed | None
    seconds: float | None
    """None where no speed is known."""
    is_calibrated: bool
    """Whether a probe on this device corrected the memory."""
    unservable: str
    """Why its versions could not be served; empty where they could."""

    @property
    def least_bytes(self) -> int:
        """What a run needs where the total is as much too high as it may be."""
        return round(self.total_bytes * (1 - ERROR_SHARE))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every technique, and the one to take."""

    techniques: tuple[TechniquePlan, ...]
    recommendation: Recommendation


def plan(
    shape: ModelShape,
    data: Data,
    device: Device,
    *,
    context_length: int,
    max_rank: int,
    calibrations: Mapping[Technique, Calibration],
    given: Mapping[str, object] | None = None,
    unservable: Mapping[Technique, str] | None = None,
) -> Plan:
    """Plan every technique. `given` are settings that were chosen already; all others are the plan's.
    `unservable` says of techniques why what they make could not be served: those are never recommended."""
    unservable = unservable or {}
    techniques = tuple(
        _technique(
            technique,
            shape,
            data,
            device,
            context_length=context_length,
            max_rank=max_rank,
            calibrations=calibrations,
            given=given or {},
            unservable=unservable.get(technique, ""),
        )
        for technique in Technique
    )
    return Plan(
        techniques=techniques,
        recommendation=recommend(
            memory_bytes=device.memory_bytes,
            rows=data.in_pieces(min(MAX_SEQUENCE_LENGTH, context_length)).rows,
            needed={one.technique: one.total_bytes for one in techniques},
            available_bytes=device.available_bytes,
            unservable=unservable,
        ),
    )


def _technique(
    technique: Technique,
    shape: ModelShape,
    data: Data,
    device: Device,
    *,
    context_length: int,
    max_rank: int,
    calibrations: Mapping[Technique, Calibration],
    given: Mapping[str, object],
    unservable: str,
) -> TechniquePlan:
    choices = choose(
        technique,
        data,
        parameters=shape.parameters,
        context_length=context_length,
        max_rank=max_rank,
    )
    settings = complete(choices, given)
    decided = {*given, *(["epochs"] if settings.max_steps else [])}
    data = data.in_pieces(row_limit(settings, technique, context_length))
    load = _load(data, settings, device)
    calibration = calibrations.get(technique)
    lines = memory(shape, technique, load, device.footing)
    if calibration is not None:
        lines = calibrated(shape, load, calibration, lines)
    needed = total(lines)
    way = course(data, settings)
    speed = _speed(shape, technique, device, calibrations)
    scored = answering(
        data,
        settings,
        device=device.footing.device,
        virtual_tokens=settings.virtual_tokens if technique is Technique.PROMPT_TUNING else 0,
    )
    return TechniquePlan(
        technique=technique,
        lines=lines,
        total_bytes=needed,
        fits=needed <= device.available_bytes,
        trained_parameters=trained_parameters(shape, technique, load),
        choices=tuple(choice for choice in choices if choice.field not in decided),
        settings=settings,
        course=way,
        speed=speed,
        seconds=None if speed is None else seconds(way, technique, speed, answering=scored),
        is_calibrated=calibration is not None,
        unservable=unservable,
    )


def _load(data: Data, settings: Hyperparameters, device: Device) -> Load:
    tokens, trained_tokens, rows = largest_pass(
        data,
        batch_size=settings.batch_size,
        budget=TOKENS_PER_PASS[device.footing.device],
    )
    return Load(
        tokens=tokens,
        trained_tokens=trained_tokens,
        rows=rows,
        longest_row=data.longest_row,
        rank=settings.rank,
        target_modules=settings.target_modules,
        dropout=settings.dropout,
        virtual_tokens=settings.virtual_tokens,
    )


def _speed(
    shape: ModelShape,
    technique: Technique,
    device: Device,
    calibrations: Mapping[Technique, Calibration],
) -> Speed | None:
    if technique in calibrations:
        return calibrations[technique].speed
    if calibrations:
        known, calibration = next(iter(calibrations.items()))
        return speed_like(calibration.speed, shape, known, technique)
    if device.operations_per_second:
        return speed_of_device(shape, technique, device.operations_per_second)
    return None
