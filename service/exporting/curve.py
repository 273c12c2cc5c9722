"""The losses of a training as they went, out of its job's events.

Pure. A point for each evaluation, or where no rows were set aside some that stand evenly. What was done again
after a crash counts once, as it was done last.
"""

from collections.abc import Iterable

from service.registry import EventRow
from trainer.curve import Curve, CurvePoint
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
    curve = Curve()
    for step in sorted(set(losses) | set(kept)):
        if step in losses:
            curve = curve.stepped(losses[step])
        if step in kept and curve.pending_steps:
            found = evaluations.get(step)
            curve = curve.evaluated(
                step,
                None if found is None else found.eval_loss,
                None if found is None else found.task_score,
            )
    return curve.points
