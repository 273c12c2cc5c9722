"""The verdict follows from the loss curve alone, by rules that a person could apply with a ruler."""

import math

import pytest

from trainer.curve import FIRST_LOSSES, Curve
from trainer.events import Verdict
from trainer.verdict import Beginning, judge, judge_broken

Pair = tuple[float, float | None]


def curve_of(start: float, *pairs: Pair) -> Curve:
    """A curve that begins at `start`, with a point every 10 steps: training loss since, evaluation loss."""
    curve = Curve(first_losses=(start,) * FIRST_LOSSES)
    for index, (train_loss, eval_loss) in enumerate(pairs, start=1):
        curve = curve.stepped(train_loss).evaluated(10 * index, eval_loss, None)
    return curve


@pytest.mark.parametrize(
    ("pairs", "verdict", "since"),
    [
        # Both fall and settle.
        ([(2.0, 1.5), (1.2, 1.1), (1.0, 1.0), (0.95, 0.98)], Verdict.GOOD_FIT, None),
        # A rise within two in a hundred is none.
        ([(2.0, 1.2), (1.1, 1.0), (0.95, 1.01), (0.9, 1.015)], Verdict.GOOD_FIT, None),
        # Training falls, evaluation rises twice in a row.
        ([(2.0, 1.2), (1.0, 1.0), (0.8, 1.03), (0.6, 1.05)], Verdict.OVERFITTING, 20),
        # One evaluation alone, but by more than a tenth.
        ([(2.0, 1.4), (1.2, 1.2), (0.9, 1.0), (0.5, 1.2)], Verdict.OVERFITTING, 30),
        # One evaluation alone, by less than a tenth: not yet.
        ([(2.0, 1.4), (1.2, 1.05), (1.0, 1.0), (0.9, 1.05)], Verdict.GOOD_FIT, None),
        # The evaluation loss stands still while the rows are learned by heart.
        ([(2.0, 1.2), (1.0, 1.0), (0.6, 1.0), (0.3, 1.0)], Verdict.OVERFITTING, 20),
        # A rise while training rises too is no overfitting.
        ([(2.0, 1.2), (0.8, 1.0), (0.9, 1.1), (0.9, 1.2)], Verdict.GOOD_FIT, None),
        # Both are still falling at the end.
        ([(2.4, 2.3), (2.1, 2.0), (1.8, 1.7), (1.5, 1.4)], Verdict.UNDERFITTING, None),
        # Training hardly moved.
        ([(2.5, 2.4), (2.49, 2.39), (2.48, 2.385), (2.47, 2.38)], Verdict.UNDERFITTING, None),
        # Far above the start.
        ([(2.4, 2.3), (4.0, 4.1), (6.0, 6.2)], Verdict.DIVERGED, 10),
        # Learned, and lost again.
        ([(1.5, 1.4), (0.5, 0.6), (2.7, 2.6)], Verdict.DIVERGED, 20),
        # Losses near nothing that differ by shares of it.
        ([(0.1, 0.01), (0.004, 0.002), (0.003, 0.003), (0.002, 0.004)], Verdict.GOOD_FIT, None),
        ([(1.0, 0.9)], Verdict.TOO_LITTLE_KNOWN, None),
        ([(1.0, None), (0.5, None), (0.2, None)], Verdict.TOO_LITTLE_KNOWN, None),
        ([(2.4, None), (7.0, None)], Verdict.DIVERGED, 10),
    ],
)
def test_an_ended_run_is_judged_by_its_curve(pairs: list[Pair], verdict: Verdict, since: int | None) -> None:
    judgement = judge(curve_of(2.5, *pairs), ended=True)
    assert (judgement.verdict, judgement.since_step) == (verdict, since), judgement.sentence
    assert judgement.step == 10 * len(pairs)
    assert judgement.train_loss == pytest.approx(pairs[-1][0])
    assert judgement.eval_loss == pairs[-1][1]


def test_a_running_run_is_only_told_of_alarms() -> None:
    falling = [(2.4, 2.3), (2.1, 2.0), (1.8, 1.7)]
    assert judge(curve_of(2.5, *falling), ended=False).verdict is Verdict.TOO_LITTLE_KNOWN
    rising = [(2.0, 1.2), (1.0, 1.0), (0.8, 1.2)]
    assert judge(curve_of(2.5, *rising), ended=False).verdict is Verdict.OVERFITTING
    assert judge(curve_of(2.5, (9.0, 9.0)), ended=False).verdict is Verdict.DIVERGED


def test_the_sentence_carries_the_numbers() -> None:
    judgement = judge(curve_of(2.5, (2.0, 1.2), (1.0, 1.0), (0.8, 1.03), (0.6, 1.05)), ended=True)
    for number in ("since step 20", "1.000 to 1.050", "1.000 to 0.600"):
        assert number in judgement.sentence
    assert (judgement.start_loss, judgement.best_eval_loss) == (2.5, 1.0)


@pytest.mark.parametrize(
    ("start", "pairs", "verdict", "since", "words"),
    [
        # The version had learned it, and there was nothing left to learn.
        (0.4, [(0.4, 0.4), (0.4, 0.4), (0.39, 0.4)], Verdict.GOOD_FIT, None, "had learned such rows already"),
        # It had not, and this run has not either.
        (2.5, [(2.5, 2.49), (2.49, 2.48), (2.48, 2.48)], Verdict.UNDERFITTING, None, "went only from 2.500"),
        # It goes on getting better, and settles.
        (1.0, [(0.8, 0.7), (0.6, 0.6), (0.55, 0.59)], Verdict.GOOD_FIT, None, "1.000 with support@1"),
        # It is by heart from the first step on: the version does best.
        (0.4, [(0.35, 0.45), (0.3, 0.5), (0.2, 0.6)], Verdict.OVERFITTING, 0, "since the first step"),
        # Nothing is learned, and something is lost.
        (0.4, [(0.45, 0.5), (0.5, 0.5), (0.5, 0.5)], Verdict.UNDERFITTING, None, "support@1 does better"),
    ],
)
def test_a_run_that_goes_on_is_compared_with_the_version_that_it_began_with(
    start: float, pairs: list[Pair], verdict: Verdict, since: int | None, words: str
) -> None:
    beginning = Beginning(version="support@1", version_loss=start, base_loss=2.6)
    judgement = judge(curve_of(start, *pairs), ended=True, beginning=beginning)
    assert (judgement.verdict, judgement.since_step) == (verdict, since), judgement.sentence
    assert words in judgement.sentence
    assert (judgement.version_eval_loss, judgement.base_eval_loss) == (start, 2.6)


def test_nothing_is_known_before_the_first_step_and_figures_that_are_no_numbers_are_a_divergence() -> None:
    assert judge(Curve(), ended=False).verdict is Verdict.TOO_LITTLE_KNOWN
    broken = judge_broken(Curve(), 1)
    assert (broken.verdict, broken.step, broken.since_step) == (Verdict.DIVERGED, 1, 1)


def test_every_curve_gets_some_verdict() -> None:
    """No combination of falls and rises is left out, and none raises."""
    figures = (0.001, 0.5, 1.0, 2.5, 10.0)
    for first in figures:
        for second in figures:
            for third in figures:
                for ended in (False, True):
                    pairs = [(first, second), (second, third), (third, first)]
                    version = Beginning(version="support@1", version_loss=second, base_loss=third)
                    for beginning in (None, version):
                        judgement = judge(curve_of(2.5, *pairs), ended=ended, beginning=beginning)
                        assert judgement.sentence.endswith(".")
                        assert judgement.train_loss is not None and math.isfinite(judgement.train_loss)
                        alarms = (Verdict.OVERFITTING, Verdict.DIVERGED)
                        assert (judgement.since_step is not None) == (judgement.verdict in alarms)
