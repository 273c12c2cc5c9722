"""Whether a job has room in the memory of the device that it would be trained on. Pure functions of a plan.

A plan may be wrong by a fifth, so only a job that could not fit into all of the device's memory, even if the
plan is too high by that, is refused. One that is planned to need more than is free now is warned of: what is
free changes until the job has its turn.
"""

from service.errors import FieldViolation
from service.planning import Needs
from service.registry import SettingWarning
from trainer.config import Technique
from trainer.planning import ERROR_SHARE

_GB = 10**9


def violations(needs: Needs, technique: Technique) -> list[FieldViolation]:
    """Why a job with the technique cannot fit, and what would."""
    planned, device = needs.techniques[technique], needs.device
    if planned.least_bytes <= device.memory_bytes:
        return []
    return [
        FieldViolation(
            field="technique",
            description=f"{technique} does not fit: with this dataset and these settings it needs about "
            f"{_gb(planned.total_bytes)}, {_gb(planned.least_bytes)} at the least, and the device has "
            f"{_gb(device.memory_bytes)} in all; {_advice(needs)}",
        )
    ]


def warnings(needs: Needs, technique: Technique) -> list[SettingWarning]:
    """That a job with the technique may not fit."""
    planned, device = needs.techniques[technique], needs.device
    if planned.total_bytes <= device.available_bytes:
        return []
    return [
        SettingWarning(
            field="technique",
            description=f"{technique} may run out of memory: it needs about {_gb(planned.total_bytes)} "
            f"({ERROR_SHARE:.0%} more or less), and of the device's {_gb(device.memory_bytes)} "
            f"{_gb(device.available_bytes)} are free now",
        )
    ]


def _advice(needs: Needs) -> str:
    fitting = [
        f"{one.technique} needs about {_gb(one.total_bytes)}"
        for one in sorted(needs.techniques.values(), key=lambda one: one.total_bytes)
        if one.total_bytes <= needs.device.memory_bytes and not one.unservable
    ]
    return ", ".join(fitting) if fitting else "shorter rows or a smaller base model need less"


def _gb(size: int) -> str:
    return f"{size / _GB:.1f} GB"
