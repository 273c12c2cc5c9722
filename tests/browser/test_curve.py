"""What the plot of a job is drawn from; no browser is needed for that."""

import math
import re
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
from ui.plot import plot_html


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
    drawn = [point.step for point in curve_of(*map(logged, steps)).training.points]
    assert MAX_POINTS / 3 < len(drawn) <= MAX_POINTS
    assert (drawn[0], drawn[-1]) == (steps[0], steps[-1])
    gaps = [after - before for before, after in pairwise(drawn[:-1])]
    assert max(gaps) <= 2 * min(gaps)


def test_steps_that_a_resumed_run_repeats_replace_those_before() -> None:
    curve = curve_of(logged(1, 3.0), logged(2, 2.0), logged(3, 1.0), logged(2, 1.5))
    assert [(point.step, point.value) for point in curve.training.points] == [(1, 3.0), (2, 1.5)]


def evaluated(step: int, loss: float, *, best: int, score: float | None = None) -> TuningEvent:
    return TuningEvent(evaluation=Evaluation(step=step, eval_loss=loss, best_step=best, task_score=score))


def paths(figure: str, kind: str) -> list[list[tuple[float, float]]]:
    """The points of each path of a kind, in thousandths of the figure's width and its height from below."""
    found = re.findall(rf'<path class="{kind}" d="M([^"]*)"', figure)
    return [
        [(float(x), 1000 - float(y)) for x, y in (point.split() for point in path.split("L"))]
        for path in found
    ]


@pytest.mark.parametrize(
    ("verdict", "word"), [(Fit.VERDICT_OVERFITTING, "overfitting"), (Fit.VERDICT_DIVERGED, "diverged")]
)
def test_the_best_step_and_where_an_alarm_began_are_upright_lines(verdict: Fit.Verdict, word: str) -> None:
    fit = TuningEvent(fit=Fit(verdict=verdict, since_step=3, best_step=2))
    curve = curve_of(logged(1, 4.0), logged(4, 5.0), evaluated(2, 2.5, best=2), fit)
    assert curve.marks() == {"best step 2": 2, f"{word} since 3": 3}
    figure = plot_html(curve)
    assert re.findall(r'<path class="mark" d="M([\d.]+) 0V1000"', figure) == ["500.0", "750.0"]
    assert f">{word} since 3<" in figure


def test_losses_are_drawn_on_the_left_axis_and_the_score_of_the_task_on_its_own() -> None:
    figure = plot_html(
        curve_of(
            logged(1, 3.5),
            evaluated(2, 2.0, best=2, score=0.25),
            logged(3, 1.0),
            evaluated(4, 1.5, best=4, score=0.75),
        )
    )
    assert paths(figure, "line training") == [[(250, 875), (750, 250)]]
    assert paths(figure, "line validation") == [[(500, 500), (1000, 375)]]
    assert paths(figure, "line task-score") == [[(500, 250), (1000, 750)]]
    left, right = re.findall(r'<div class="axis (?:left|right)">(.*?)</div>', figure)
    assert re.findall(r">([\d.]+)<", left) == ["0", "1", "2", "3", "4"]
    assert re.findall(r">([\d.]+)<", right) == ["0", "0.25", "0.5", "0.75", "1"]
    assert "<title>step 4, validation 1.500, task score 0.750</title>" in figure


def test_a_figure_without_scores_has_one_axis_and_leaves_out_what_is_no_number() -> None:
    figure = plot_html(curve_of(logged(1, 2.0), logged(2, math.nan), logged(3, math.inf)))
    assert paths(figure, "line training") == [[(1000, 1000)]]
    assert "task score" not in figure
    assert 'class="axis right"' not in figure
    assert "appears here" in plot_html(curve_of())
