"""Settings of a job that cannot both be meant: each violation names the other field.

Pure functions of a request; what a single field may be stands in the protos.
"""

from hotlora.v1 import tuning_service_pb2 as pb
from service.errors import FieldViolation
from service.rpc import stopping
from trainer.config import Hyperparameters
from trainer.planning.duration import Data

DECIDE_STEPS = tuple(
    f"hyperparameters.{name}"
    for name in (
        *("epochs", "max_steps", "batch_size", "max_sequence_length"),
        *("validation_fraction", "eval_every_steps"),
    )
)
"""What has to be known to say how many steps and evaluations a run has."""


def between(
    given: pb.Hyperparameters, settings: Hyperparameters, *, data: Data | None, scored: bool | None
) -> list[FieldViolation]:
    """What contradicts what. `given` is what was asked for, `settings` the same with defaults filled in.
    `data` is in the pieces that the run takes; None: nobody can say how many steps that are. `scored`: the
    dataset has a task; None: nobody can say."""
    return [
        *stopping.contradictions(settings, rows=None if data is None else data.rows, scored=scored),
        *_two_ends(given),
        *_evaluations_of_nothing(given, settings, data),
    ]


def _two_ends(given: pb.Hyperparameters) -> list[FieldViolation]:
    if not (given.HasField("epochs") and given.HasField("max_steps")):
        return []
    return [
        FieldViolation(
            field="hyperparameters.epochs",
            description=f"{given.epochs} contradicts hyperparameters.max_steps {given.max_steps}, after "
            "which training ends whatever the epochs; leave one of the two out",
        )
    ]


def _evaluations_of_nothing(
    given: pb.Hyperparameters, settings: Hyperparameters, data: Data | None
) -> list[FieldViolation]:
    reason = stopping.nothing_aside(settings, None if data is None else data.rows)
    if not given.HasField("eval_every_steps") or not reason:
        return []
    return [
        FieldViolation(
            field="hyperparameters.eval_every_steps",
            description=f"{given.eval_every_steps} cannot be had: {reason}, so no rows are set aside to "
            "evaluate on; leave it out",
        )
    ]
