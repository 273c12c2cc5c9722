"""What the plot of a job is drawn from; no browser is needed for that."""

from itertools import pairwise

import pytest

from hotlora.v1.tuning_service_pb2 import (
    Evaluation,
    Fit,
    Metrics,
    TuningEvent,
    WatchTuningJobResponse,
)
from ui.board import MAX_POINTS, Curve


def curve_of(*events: TuningEvent) -> Curve:
    curve = Curve()
    for sequence, event in enumerate(events, start=1):
        event.sequence = sequence
        curve.take(WatchTuningJobResponse(event=event))
    return curve


def logged(step: int, loss: float = 1.0) -> TuningEvent:
    return TuningEvent(metrics=Metrics(step=step, loss=loss))


@pytest.mark.parametrize("every", [1, 10])
def test_a_long_run_is_drawn_by_a_bounded_number_of_even_points_up_to_its_last_step(every: int) -> None:
    steps = range(every, 20_000 * every + 1, every)
    drawn = [point.step for point in curve_of(*map(logged, steps)).marked()]
    assert MAX_POINTS / 3 < len(drawn) <= MAX_POINTS
    assert (drawn[0], drawn[-1]) == (steps[0], steps[-1])
    gaps = [after - before for before, after in pairwise(drawn[:-1])]
    assert max(gaps) <= 2 * min(gaps)


def test_steps_that_a_resumed_run_repeats_replace_those_before() -> None:
    curve = curve_of(logged(1, 3.0), logged(2, 2.0), logged(3, 1.0), logged(2, 1.5))
    assert [(point.step, point.loss) for point in curve.marked()] == [(1, 3.0), (2, 1.5)]


@pytest.mark.parametrize(
    ("verdict", "word"), [(Fit.VERDICT_OVERFITTING, "overfitting"), (Fit.VERDICT_DIVERGED, "diverged")]
)
def test_an_alarm_is_an_upright_line_where_it_began(verdict: Fit.Verdict, word: str) -> None:
    evaluation = TuningEvent(evaluation=Evaluation(step=2, eval_loss=2.5, best_step=2))
    fit = TuningEvent(fit=Fit(verdict=verdict, since_step=3, best_step=2))
    curve = curve_of(logged(1, 4.0), logged(3, 5.0), evaluation, fit)
    line = [(point.step, point.loss) for point in curve.marked() if point.kind == f"{word} since 3"]
    assert line == [(3, 0.0), (3, 5.0)]
