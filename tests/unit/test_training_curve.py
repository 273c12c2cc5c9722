"""The losses of a training out of its job's events."""

from dataclasses import replace

from service.exporting.curve import curve_of
from service.registry import EventRow
from service.registry.rows import ProgressEvent
from tests.contract.training import HISTORY
from trainer.curve import CurvePoint
from trainer.events import Evaluation, Metrics

METRICS = next(event for event in HISTORY if isinstance(event, Metrics))
EVALUATION = next(event for event in HISTORY if isinstance(event, Evaluation))


def rows(*bodies: ProgressEvent) -> list[EventRow]:
    return [
        EventRow(job_id="j", sequence=number, time=body.time, kind=body.kind, body=body)
        for number, body in enumerate(bodies, start=1)
    ]


def trained(step: int, loss: float) -> Metrics:
    return replace(METRICS, step=step, loss=loss)


def evaluated(step: int, loss: float, score: float | None = None) -> Evaluation:
    return replace(EVALUATION, step=step, eval_loss=loss, task_score=score)


def test_a_point_has_the_mean_training_loss_since_the_point_before() -> None:
    told = rows(trained(1, 4.0), trained(2, 2.0), evaluated(2, 2.5), trained(4, 1.0), evaluated(4, 1.5, 0.5))
    assert curve_of(told) == (
        CurvePoint(step=2, train_loss=3.0, eval_loss=2.5),
        CurvePoint(step=4, train_loss=1.0, eval_loss=1.5, task_score=0.5),
    )


def test_steps_that_were_done_again_after_a_crash_count_once_and_as_they_were_done_last() -> None:
    told = rows(trained(1, 9.0), evaluated(1, 9.0), trained(1, 4.0), evaluated(1, 3.0), trained(2, 2.0))
    assert curve_of(told) == (CurvePoint(step=1, train_loss=4.0, eval_loss=3.0),)


def test_without_evaluations_a_long_training_has_some_points_and_its_last_one() -> None:
    points = curve_of(rows(*(trained(step, float(step)) for step in range(1, 1002))))
    assert 20 <= len(points) <= 22
    assert (points[0].step, points[-1].step) == (1, 1001)
    assert all(point.eval_loss is None for point in points)


def test_nothing_that_was_told_makes_no_curve() -> None:
    assert curve_of([]) == ()
