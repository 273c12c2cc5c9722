"""What is contradictory in the settings of early stopping, found before a job is queued.

Each problem names both settings that do not go together. It knows no requests beyond the names of fields.
"""

from service.errors import FieldViolation
from trainer.config import Hyperparameters, Metric
from trainer.pacing import evaluation_interval, evaluations, total_steps, validation_count

PATIENCE = "hyperparameters.early_stopping_patience"
METRIC = "hyperparameters.early_stopping_metric"


def contradictions(
    settings: Hyperparameters, *, rows: int | None, scored: bool | None
) -> list[FieldViolation]:
    """Problems of patience and metric in a run on `rows` rows, or pieces of texts; `scored`: the dataset has
    a task. None: nobody can say."""
    found = []
    if settings.early_stopping_metric is Metric.TASK_SCORE and scored is False:
        found.append(
            FieldViolation(
                field=METRIC,
                description="METRIC_TASK_SCORE needs a dataset with a task, and this one has none; "
                "use METRIC_EVAL_LOSS",
            )
        )
    reason = nothing_aside(settings, rows)
    if reason:
        return [*found, *_without_evaluations(settings, reason)]
    return found if rows is None else [*found, *_endless_patience(settings, rows)]


def nothing_aside(settings: Hyperparameters, rows: int | None) -> str:
    """Why no rows are set aside to evaluate on; empty where some are, or nobody can say."""
    if settings.validation_fraction == 0:
        return "hyperparameters.validation_fraction is 0"
    if rows is not None and validation_count(rows, settings.validation_fraction) == 0:
        return f"the dataset has {rows} row only"
    return ""


def _without_evaluations(settings: Hyperparameters, reason: str) -> list[FieldViolation]:
    patience, metric = settings.early_stopping_patience, settings.early_stopping_metric
    wishes = []
    if patience:
        wishes.append((PATIENCE, f"{patience} evaluations"))
    if metric is Metric.TASK_SCORE:
        wishes.append((METRIC, "METRIC_TASK_SCORE"))
    return [
        FieldViolation(
            field=field,
            description=f"{wish} cannot be had: {reason}, so no rows are set aside to evaluate on",
        )
        for field, wish in wishes
    ]


def _endless_patience(settings: Hyperparameters, rows: int) -> list[FieldViolation]:
    patience = settings.early_stopping_patience
    steps = total_steps(settings, rows - validation_count(rows, settings.validation_fraction))
    count = evaluations(settings, steps)
    if patience < count:
        return []
    return [
        FieldViolation(
            field=PATIENCE,
            description=f"{patience} evaluations without anything better cannot come to pass: with "
            f"hyperparameters.eval_every_steps {evaluation_interval(settings, steps)}, the run of "
            f"{steps} steps has {count}; lower one of the two, or set the patience to 0",
        )
    ]
