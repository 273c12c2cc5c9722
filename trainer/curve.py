"""The loss curve of a run, in the few numbers that a verdict and a choice of the best step need.

One point for each evaluation: the mean training loss since the one before, and what the evaluation measured.
Standard library only; it does not know models, and judges nothing.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FIRST_LOSSES = 5
"""Steps whose mean loss stands for where the run began: one batch alone may be easy or hard by chance."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """What is known at an evaluation. Losses are means in nats over trained tokens."""

    step: int
    """Optimizer steps done."""
    train_loss: float
    """Mean over the steps since the point before."""
    eval_loss: float | None = None
    """None where no rows were set aside."""
    task_score: float | None = None
    """The task's own figure, 0 to 1; None where the evaluation was not scored."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Everything so far. A step or a point more makes a new curve."""

    points: tuple[CurvePoint, ...] = ()
    first_losses: tuple[float, ...] = ()
    """Of the first steps, at most `FIRST_LOSSES`."""
    last_loss: float | None = None
    """Of the newest step; None before the first."""
    pending_loss: float = 0.0
    """Sum over the steps since the newest point."""
    pending_steps: int = 0

    def stepped(self, loss: float) -> "Curve":
        """With one optimizer step more."""
        room = FIRST_LOSSES - len(self.first_losses)
        return dataclasses.replace(
            self,
            first_losses=(*self.first_losses, loss) if room else self.first_losses,
            last_loss=loss,
            pending_loss=self.pending_loss + loss,
            pending_steps=self.pending_steps + 1,
        )

    def evaluated(self, step: int, eval_loss: float | None, task_score: float | None) -> "Curve":
        """With a point more; at least one step must have come since the point before."""
        assert self.pending_steps, "an evaluation follows a step"
        point = CurvePoint(
            step=step,
            train_loss=self.pending_loss / self.pending_steps,
            eval_loss=eval_loss,
            task_score=task_score,
        )
        return dataclasses.replace(self, points=(*self.points, point), pending_loss=0.0, pending_steps=0)

    @property
    def start_loss(self) -> float | None:
        """Where the run began: mean loss of its first steps; None before the first."""
        return sum(self.first_losses) / len(self.first_losses) if self.first_losses else None

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Curve":
        """What `dataclasses.asdict` and JSON made of a curve. Raises TypeError, KeyError."""
        return cls(
            **{
                **fields,
                "points": tuple(CurvePoint(**point) for point in fields["points"]),
                "first_losses": tuple(fields["first_losses"]),
            }
        )
