"""The verdict: from the loss curve alone, whether a run learned too little, enough, or by heart.

A pure function of the curve, standard library only. A run that goes on from a version begins where that one
ended, so its rules know what base and version had reached on the same rows, too; the version counts as an
evaluation before the first step. The rules, in the order in which they are tried:

- DIVERGED: the training loss ends far above where the run began, or back there after having been well below.
- TOO_LITTLE_KNOWN: fewer than two evaluations.
- OVERFITTING since the step with the lowest evaluation loss: since then the training loss kept falling while
  the evaluation loss rose, or stood still while the training loss fell far.
- UNDERFITTING, judged only at the end: the training loss hardly fell at all, or both losses were still
  falling. Not where the version had learned the rows already; but always where it does better on them than
  any step of the run.
- GOOD_FIT otherwise. While a run goes on, only the first and the third are ever said.
"""

import dataclasses
from dataclasses import dataclass

from trainer.curve import Curve, CurvePoint
from trainer.events import Verdict

EXPLODED = 1.5
"""Training loss over that of the start; batches differ by less."""
EXPLODED_NATS = 0.5
WELL_BELOW = 0.8
"""Share of the start's loss below which a run had learned; being back at the start after that is a loss of
it."""
RISE = 0.02
"""Rise of the evaluation loss over its lowest, twice in a row, that is no chance: the rows are the same."""
STEEP_RISE = 0.1
"""The same where one evaluation alone shows it."""
RISE_NATS = 0.01
"""Below this a rise is a matter of rounding, however large its share."""
BY_HEART = 0.75
"""Share to which the training loss must have fallen since, for a flat evaluation loss to mean overfitting."""
GAP_NATS = 0.05
"""And how far it must lie below the evaluation loss."""
HARDLY_LEARNED = 0.95
"""Share of the start's training loss above which nothing much was learned; of the base's evaluation loss,
above which a version had not learned much of the rows."""
STILL_FALLING = 0.05
"""Fall of the evaluation loss over the last quarter of the run that more steps would have continued."""
STILL_FALLING_NATS = 0.02


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a run that goes on from a version began with: losses on the rows set aside."""

    version: str
    """What people call it, for example `support@1`."""
    version_loss: float
    base_loss: float

    @property
    def had_learned(self) -> bool:
        """Whether the version knew more of such rows than the base does."""
        return self.version_loss <= HARDLY_LEARNED * self.base_loss

    @property
    def losses(self) -> str:
        """In words, as the begin of a sentence."""
        return (
            f"Before the first step evaluation loss was {self.version_loss:.3f} with {self.version},"
            f" {self.base_loss:.3f} with the base"
        )

    def does_better_than(self, eval_loss: float) -> bool:
        """Whether the version has a lower loss, by more than chance."""
        rise = eval_loss - self.version_loss
        return rise > RISE_NATS and rise > RISE * self.version_loss


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict with its numbers; what they mean stands at `trainer.events.Fit`."""

    verdict: Verdict
    step: int
    since_step: int | None = None
    start_loss: float | None = None
    train_loss: float | None = None
    eval_loss: float | None = None
    best_eval_loss: float | None = None
    version_eval_loss: float | None = None
    base_eval_loss: float | None = None
    sentence: str


def judge(curve: Curve, *, ended: bool, beginning: Beginning | None = None) -> Judgement:
    """Judge a run by its curve so far. `ended`: no step follows. `beginning`: a version, if it was one."""
    judgement = _judge(curve, ended, beginning)
    if beginning is None:
        return judgement
    return dataclasses.replace(
        judgement, version_eval_loss=beginning.version_loss, base_eval_loss=beginning.base_loss
    )


def _judge(curve: Curve, ended: bool, beginning: Beginning | None) -> Judgement:
    points = curve.points
    evaluated = [point for point in points if point.eval_loss is not None]
    diverged = _divergence(curve)
    if diverged is not None:
        return diverged
    if not evaluated:
        return _judgement(
            curve,
            Verdict.TOO_LITTLE_KNOWN,
            "Too little is known: no rows were set aside, so nothing shows how it does on rows it never saw."
            if points
            else "Too little is known before the first evaluation.",
        )
    if len(evaluated) < 2:
        return _judgement(
            curve, Verdict.TOO_LITTLE_KNOWN, "Too little is known: one evaluation shows no direction."
        )
    overfitting = _overfitting(curve, evaluated, beginning)
    if overfitting is not None:
        return overfitting
    if not ended:
        return _judgement(
            curve, Verdict.TOO_LITTLE_KNOWN, "Training goes on, and nothing speaks against it so far."
        )
    return _underfitting(curve, evaluated, beginning) or _good_fit(curve, evaluated, beginning)


def judge_broken(curve: Curve, step: int) -> Judgement:
    """Judge a run whose figures stopped being finite numbers in `step`."""
    return _judgement(
        curve,
        Verdict.DIVERGED,
        f"Diverged in step {step}: its figures are no finite numbers any more. A lower learning rate, a"
        " longer warm-up or clipped gradients help.",
        step=step,
        since_step=step,
    )


def _divergence(curve: Curve) -> Judgement | None:
    start, points = curve.start_loss, curve.points
    if start is None or not points:
        return None
    last = points[-1].train_loss
    lowest = min(points, key=lambda point: point.train_loss)
    exploded = last > EXPLODED * start and last > start + EXPLODED_NATS
    lost = last > start and lowest.train_loss < WELL_BELOW * start
    if not exploded and not lost:
        return None
    since = lowest.step if lost else points[0].step
    return _judgement(
        curve,
        Verdict.DIVERGED,
        f"Diverged since step {since}: training loss began at {start:.3f} and is {last:.3f}. A lower learning"
        " rate, a longer warm-up or clipped gradients help.",
        since_step=since,
    )


def _overfitting(curve: Curve, evaluated: list[CurvePoint], beginning: Beginning | None) -> Judgement | None:
    if beginning is not None:
        assert curve.start_loss is not None, "an evaluation follows a step"
        start = CurvePoint(step=0, train_loss=curve.start_loss, eval_loss=beginning.version_loss)
        evaluated = [start, *evaluated]
    lowest = min(evaluated, key=_eval_loss)
    last = evaluated[-1]
    after = sum(point.step > lowest.step for point in evaluated)
    if not after or last.train_loss >= lowest.train_loss:
        return None
    low, now = _eval_loss(lowest), _eval_loss(last)
    rise = now - low
    risen = rise > RISE_NATS and (rise > STEEP_RISE * low or (after >= 2 and rise > RISE * low))
    by_heart = (
        after >= 2 and last.train_loss < BY_HEART * lowest.train_loss and last.train_loss < now - GAP_NATS
    )
    if not risen and not by_heart:
        return None
    course = f"rose from {low:.3f} to {now:.3f}" if risen else f"stayed at {now:.3f}"
    since = f"step {lowest.step}" if lowest.step else "the first step"
    return _judgement(
        curve,
        Verdict.OVERFITTING,
        f"Overfitting since {since}: evaluation loss {course} while training loss fell from"
        f" {lowest.train_loss:.3f} to {last.train_loss:.3f}. Fewer epochs, more rows, more dropout or weight"
        " decay help.",
        since_step=lowest.step,
    )


def _underfitting(curve: Curve, evaluated: list[CurvePoint], beginning: Beginning | None) -> Judgement | None:
    last = evaluated[-1]
    if beginning is not None and beginning.does_better_than(lowest := min(map(_eval_loss, evaluated))):
        return _judgement(
            curve,
            Verdict.UNDERFITTING,
            f"Underfitting: {beginning.version} does better on the rows set aside than any step of this run:"
            f" its evaluation loss is {beginning.version_loss:.3f}, and the lowest since is {lowest:.3f}."
            " A lower learning rate, or rows more like those that it was trained on, help.",
        )
    if _hardly_moved(curve) and (beginning is None or not beginning.had_learned):
        known = "" if beginning is None else f" {beginning.losses}: little was learned before, too."
        return _judgement(
            curve,
            Verdict.UNDERFITTING,
            f"Underfitting: training loss went only from {curve.start_loss:.3f} to {last.train_loss:.3f}."
            f"{known} A higher learning rate, a higher rank or more epochs help.",
        )
    before = [point for point in evaluated if point.step <= 0.75 * last.step] or evaluated[:1]
    then, now = _eval_loss(before[-1]), _eval_loss(last)
    fell = then - now
    if fell > STILL_FALLING * then and fell > STILL_FALLING_NATS and last.train_loss < before[-1].train_loss:
        return _judgement(
            curve,
            Verdict.UNDERFITTING,
            f"Underfitting: both losses were still falling at the end, the evaluation loss from {then:.3f} at"
            f" step {before[-1].step} to {now:.3f}. More epochs or a higher learning rate help.",
        )
    return None


def _good_fit(curve: Curve, evaluated: list[CurvePoint], beginning: Beginning | None) -> Judgement:
    last, lowest = evaluated[-1], min(map(_eval_loss, evaluated))
    if beginning is not None and _hardly_moved(curve):
        sentence = (
            f"Good fit: {beginning.version} had learned such rows already, and training added little."
            f" {beginning.losses}, and ended at {_eval_loss(last):.3f} (lowest {lowest:.3f})."
        )
    else:
        compared = "" if beginning is None else f" {beginning.losses}."
        sentence = (
            f"Good fit: training loss fell from {curve.start_loss:.3f} to {last.train_loss:.3f}, evaluation"
            f" loss ended at {_eval_loss(last):.3f} (lowest {lowest:.3f}) and had settled.{compared}"
        )
    return _judgement(curve, Verdict.GOOD_FIT, sentence)


def _hardly_moved(curve: Curve) -> bool:
    assert curve.start_loss is not None, "an evaluation follows a step"
    return curve.points[-1].train_loss > HARDLY_LEARNED * curve.start_loss


def _judgement(
    curve: Curve, verdict: Verdict, sentence: str, *, step: int | None = None, since_step: int | None = None
) -> Judgement:
    last = curve.points[-1] if curve.points else None
    evaluated = [point.eval_loss for point in curve.points if point.eval_loss is not None]
    return Judgement(
        verdict=verdict,
        step=step if step is not None else last.step if last else 0,
        since_step=since_step,
        start_loss=curve.start_loss,
        train_loss=last.train_loss if last else None,
        eval_loss=evaluated[-1] if evaluated else None,
        best_eval_loss=min(evaluated, default=None),
        sentence=sentence,
    )


def _eval_loss(point: CurvePoint) -> float:
    assert point.eval_loss is not None, "only evaluated points come here"
    return point.eval_loss
