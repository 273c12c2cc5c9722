"""A run that watches itself: it evaluates, keeps the best state, judges the curve, and knows when to stop.

What an evaluation measures and how states are kept is given to it; it decides what is better, and says so in
events.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from trainer.channel import Channel
from trainer.checkpoints import Progress
from trainer.config import Hyperparameters, Metric
from trainer.curve import CurvePoint
from trainer.events import Evaluation, FailureReason, Fit, Verdict
from trainer.failures import TrainingError
from trainer.verdict import Beginning, Judgement, judge, judge_broken

_ALARMS = frozenset({Verdict.OVERFITTING, Verdict.DIVERGED})
"""Verdicts that are told while training goes on."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What an evaluation found."""

    eval_loss: float
    rows: int
    leaked_rows: int = 0
    """Of the rows, those that are as good as trained on."""
    task_score: float | None = None
    """None where the evaluation is not scored."""
    reward_margin: float | None = None
    reward_accuracy: float | None = None
    """Of preferences alone."""


class Watch:
    """Watches one attempt, going on where an earlier one stood."""

    def __init__(
        self,
        settings: Hyperparameters,
        channel: Channel,
        start: Progress,
        total_steps: int,
        *,
        measure: Callable[[int], Measured] | None,
        keep_best: Callable[[int], None],
        restore_best: Callable[[int], None],
        beginning: Beginning | None = None,
    ) -> None:
        """`measure` evaluates after a step, None where no rows are set aside; the others keep the state of a
        step, and bring it back. `beginning` is what a run knows that goes on from a version."""
        self._settings = settings
        self._channel = channel
        self._total_steps = total_steps
        self._measure = measure
        self._keep_best = keep_best
        self._restore_best = restore_best
        self._beginning = beginning
        self._caveat = ""
        self.curve = start.curve
        self._told = self._alarm(self._judge(ended=False))

    def stepped(self, loss: float) -> None:
        """Take the loss of one optimizer step."""
        self.curve = self.curve.stepped(loss)

    def evaluate(self, step: int) -> None:
        """Evaluate after `step`, keep the state if it is the best one, and tell.

        Raises CancellationError, TrainingError(NAN_LOSS), OSError.
        """
        measured = self._measure(step) if self._measure is not None else None
        if measured is None:
            self.curve = self.curve.evaluated(step, None, None)
        else:
            self.curve = self.curve.evaluated(step, measured.eval_loss, measured.task_score)
            self._caveat = _caveat(measured)
            if self.best_step == step < self._total_steps:  # the last one's state needs no file
                self._keep_best(step)
            self._channel.send(
                Evaluation(
                    time=self._channel.clock(),
                    step=step,
                    best_step=self.best_step,
                    **dataclasses.asdict(measured),
                )
            )
        judgement = self._judge(ended=False)
        alarm = self._alarm(judgement)
        if alarm is not self._told and step < self._total_steps:
            self._told = alarm
            self._tell(judgement)

    @property
    def best_step(self) -> int:
        """The step with the best evaluation; 0 where there is none."""
        best = self._best()
        return 0 if best is None else best.step

    @property
    def patience_is_spent(self) -> bool:
        """Whether so many evaluations in a row brought nothing better that training ends."""
        patience, best = self._settings.early_stopping_patience, self._best()
        if not patience or best is None:
            return False
        return sum(point.step > best.step for point in self.curve.points) >= patience

    def seen(self, progress: Progress) -> Progress:
        """What a checkpoint has to know besides."""
        return dataclasses.replace(progress, curve=self.curve, best_step=self.best_step)

    def conclude(self, last_step: int) -> int:
        """Tell the verdict at the end, and bring back the state to be published; returns its step."""
        published = self.best_step or last_step
        if published != last_step:
            self._restore_best(published)
        self._tell(self._judge(ended=True), published, stopped_early=last_step < self._total_steps)
        return published

    def figures(self, published_step: int) -> dict[str, float | int | str | None]:
        """What the manifest tells of the state that is published, and of the run that led to it."""
        best = self._best()
        return {
            "best_step": published_step,
            "loss": self.curve.last_loss,
            "eval_loss": None if best is None else best.eval_loss,
            "task_score": None if best is None else best.task_score,
            "verdict": self._judge(ended=True).verdict,
        }

    @contextmanager
    def telling_of_divergence(self) -> Iterator[None]:
        """Tell the verdict on a run that ends because its figures are no numbers any more."""
        try:
            yield
        except TrainingError as error:
            if error.reason is FailureReason.NAN_LOSS:
                points = self.curve.points
                done = (points[-1].step if points else 0) + self.curve.pending_steps
                self._tell(judge_broken(self.curve, min(done + 1, self._total_steps)))
            raise

    def _judge(self, *, ended: bool) -> Judgement:
        return judge(self.curve, ended=ended, beginning=self._beginning)

    def _best(self) -> CurvePoint | None:
        points = [point for point in self.curve.points if point.eval_loss is not None]
        # The first of equals: later ones have moved further from the base for nothing.
        return max(points, key=self._goodness, default=None)

    def _goodness(self, point: CurvePoint) -> tuple[float, float]:
        loss = -point.eval_loss if point.eval_loss is not None else -math.inf
        if self._settings.early_stopping_metric is Metric.TASK_SCORE and point.task_score is not None:
            return point.task_score, loss
        return loss, 0.0

    def _alarm(self, judgement: Judgement) -> Verdict | None:
        return judgement.verdict if judgement.verdict in _ALARMS else None

    def _tell(
        self, judgement: Judgement, best_step: int | None = None, *, stopped_early: bool = False
    ) -> None:
        self._channel.send(
            Fit(
                time=self._channel.clock(),
                best_step=self.best_step if best_step is None else best_step,
                stopped_early=stopped_early,
                **{**dataclasses.asdict(judgement), "sentence": judgement.sentence + self._caveat},
            )
        )


def _caveat(measured: Measured) -> str:
    if not measured.leaked_rows:
        return ""
    return (
        f" But {measured.leaked_rows} of the {measured.rows} rows set aside have the prompt of a row that is"
        " trained on, so the evaluation loss says less of unseen ones."
    )
