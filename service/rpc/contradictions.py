"""Settings of a job that cannot both be meant: each violation names the other field.

Pure functions of a request; what a single field may be stands in the protos.
"""

import math

from hotlora.v1 import tuning_service_pb2 as pb
from service.errors import FieldViolation
from trainer.config import Hyperparameters
from trainer.planning.duration import Data, course


def between(given: pb.Hyperparameters, settings: Hyperparameters, *, data: Data) -> list[FieldViolation]:
    """What contradicts what. `given` is what was asked for, `settings` the same with defaults filled in.
    `data` is in the pieces that the run takes."""
    return [*_evaluations_of_nothing(given, settings), *_nothing_but_warmup(given, settings, data)]


def _evaluations_of_nothing(given: pb.Hyperparameters, settings: Hyperparameters) -> list[FieldViolation]:
    if not given.HasField("eval_every_steps") or settings.validation_fraction > 0:
        return []
    return [
        FieldViolation(
            field="hyperparameters.eval_every_steps",
            description=f"{given.eval_every_steps} contradicts hyperparameters.validation_fraction 0: no row "
            "is set aside to evaluate on; leave one of the two out",
        )
    ]


def _nothing_but_warmup(
    given: pb.Hyperparameters, settings: Hyperparameters, data: Data
) -> list[FieldViolation]:
    if not given.HasField("warmup_ratio") or not given.warmup_ratio:
        return []
    steps = course(data, settings).steps
    if math.ceil(given.warmup_ratio * steps) < steps:
        return []
    name = "max_steps" if settings.max_steps else "epochs"
    return [
        FieldViolation(
            field="hyperparameters.warmup_ratio",
            description=f"{given.warmup_ratio:g} contradicts hyperparameters.{name} "
            f"{settings.max_steps or settings.epochs}: all {steps} step{'s' * (steps > 1)} of the run would "
            f"be warm-up; set warmup_ratio to 0 or {name} higher",
        )
    ]
