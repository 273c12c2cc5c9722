"""What is contradictory in the settings of early stopping, found before a job is queued.

Each problem names both settings that do not go together. It knows no requests beyond the names of fields.
"""

from service.errors import FieldViolation
from trainer.config import Hyperparameters, Metric
from trainer.pacing import evaluation_interval, evaluations, total_steps, validation_count

PATIENCE = "hyperparameters.early_stopping_patience"
METRIC = "hyperparameters.early_stopping_metric"


def contradictions(settings: Hyperparameters, *, rows: int, scored: bool) -> list[FieldViolation]:
    """Problems of patience and metric in a run on `rows` rows, or pieces of texts; `scored`: the dataset has
    a task."""
    patience = settings.early_stopping_patience
    found = []
    if settings.early_stopping_metric is Metric.TASK_SCORE and not scored:
        found.append(
            FieldViolation(
                field=METRIC,
                description="METRIC_TASK_SCORE needs a dataset with a task, and this one has none; "
                "use METRIC_EVAL_LOSS",
            )
        )
    aside = validation_count(rows, settings.validation_fraction)
    if not aside:
        reason = (
            f"hyperparameters.validation_fraction is {settings.validation_fraction:g}"
            if settings.validation_fraction == 0
            else f"the dataset has {rows} row only"
        )
        for field, wish in (
            (PATIENCE, f"{patience} evaluations" if patience else ""),
            (METRIC, "METRIC_TASK_SCORE" if settings.early_stopping_metric is Metric.TASK_SCORE else ""),
        ):
            if wish:
                found.append(
                    FieldViolation(
                        field=field,
                        description=f"{wish} cannot be had: {reason}, so no rows are set aside to "
                        "evaluate on",
                    )
                )
        return found
    steps = total_steps(settings, rows - aside)
    count = evaluations(settings, steps)
    if patience >= count:
        found.append(
            FieldViolation(
                field=PATIENCE,
                description=f"{patience} evaluations without anything better cannot come to pass: with "
                f"hyperparameters.eval_every_steps {evaluation_interval(settings, steps)}, the run of "
                f"{steps} steps has {count}; lower one of the two, or set the patience to 0",
            )
        )
    return found
