"""The losses of a training as they went, out of its job's events.

Pure. A point for each evaluation, or where no rows were set aside some that stand evenly. What was done again
after a crash counts once, as it was done last.
"""

from collections.abc import Iterable
from statistics import mean

from service.registry import EventRow
from trainer.curve import CurvePoint
from trainer.events import Evaluation, Metrics

_MOST_POINTS = 20


def curve_of(rows: Iterable[EventRow]) -> tuple[CurvePoint, ...]:
    """Points by step, at most about 20. Training losses are means since the point before."""
    losses: dict[int, float] = {}
    evaluations: dict[int, Evaluation] = {}
    for row in rows:
        match row.body:
            case Metrics() as told:
                losses[told.step] = told.loss
            case Evaluation() as told:
                evaluations[told.step] = told
    steps = sorted(set(evaluations) or set(losses))
    kept = steps[:: -(-len(steps) // _MOST_POINTS) or 1]
    if steps and kept[-1] != steps[-1]:
        kept.append(steps[-1])
    points, before = [], 0
    for step in kept:
        since = [loss for at, loss in losses.items() if before < at <= step]
        if since:
            found = evaluations.get(step)
            points.append(
                CurvePoint(
                    step=step,
                    train_loss=mean(since),
                    eval_loss=None if found is None else found.eval_loss,
                    task_score=None if found is None else found.task_score,
                )
            )
            before = step
    return tuple(points)
