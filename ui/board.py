"""What the Training tab knows of jobs: the newest ones, and the curve of each one that somebody looks at.

The service's events are the truth; this keeps a bounded copy that is rebuilt from the first event on, so
that a plot costs the service one stream however many people look at it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hotlora.aio import AsyncClient
from hotlora.errors import HotloraError, NotFound
from hotlora.v1.adapter_service_pb2 import AdapterVersion
from hotlora.v1.tuning_service_pb2 import TECHNIQUE_QLORA, Fit, TuningJob, WatchTuningJobResponse

MAX_JOBS = 50
MAX_POINTS = 500
"""Points of one line that a curve keeps; longer ones are thinned."""

_ALARMS = {Fit.VERDICT_OVERFITTING: "overfitting", Fit.VERDICT_DIVERGED: "diverged"}

FINISHED = frozenset({TuningJob.STATE_SUCCEEDED, TuningJob.STATE_FAILED, TuningJob.STATE_CANCELLED})


@dataclass(frozen=True, kw_only=True)
class Point:
    """One figure of a curve."""

    step: int
    value: float
    """A mean loss, or the score of a task, 0 to 1."""


@dataclass
class Series:
    """The points of one line, in the order of their steps and about equally far apart. Never more than
    MAX_POINTS."""

    points: list[Point] = field(default_factory=list)
    min_gap: int = 0
    """Steps between two points; the newest point may stand closer, until one comes that does not."""

    def add(self, point: Point) -> None:
        """Add a point; those at its step and after it go, because a resumed run repeats them."""
        while self.points and self.points[-1].step >= point.step:
            self.points.pop()
        if len(self.points) > 1 and self.points[-1].step - self.points[-2].step < self.min_gap:
            self.points.pop()
        self.points.append(point)
        if len(self.points) > MAX_POINTS:
            self.min_gap = 2 * (self.points[1].step - self.points[0].step)
            del self.points[1:-1:2]


@dataclass
class Curve:
    """The figures of one job so far."""

    training: Series = field(default_factory=Series)
    validation: Series = field(default_factory=Series)
    task_score: Series = field(default_factory=Series)
    """Empty where the data has no task, or nothing scores it."""
    fit: Fit = field(default_factory=Fit)
    """The latest verdict; empty before the first."""
    best_step: int = 0
    last_sequence: int = 0

    def take(self, update: WatchTuningJobResponse) -> None:
        """Add what a message of a watch brings."""
        if update.WhichOneof("update") != "event":
            return
        event = update.event
        self.last_sequence = event.sequence
        match event.WhichOneof("event"):
            case "metrics":
                self.training.add(Point(step=event.metrics.step, value=event.metrics.loss))
            case "evaluation":
                evaluation = event.evaluation
                self.validation.add(Point(step=evaluation.step, value=evaluation.eval_loss))
                if evaluation.HasField("task_score"):
                    self.task_score.add(Point(step=evaluation.step, value=evaluation.task_score))
                self.best_step = evaluation.best_step
            case "fit":
                self.fit, self.best_step = event.fit, event.fit.best_step

    def marks(self) -> dict[str, int]:
        """The best step and where an alarm began, as words and steps."""
        alarm = _ALARMS.get(self.fit.verdict, "")
        onset = self.fit.since_step if alarm else 0
        best = self.best_step if self.validation.points else 0
        if best and best == onset:
            return {f"best step {best}, {alarm} since": best}
        marks = {f"best step {best}": best, f"{alarm} since {onset}": onset}
        return {words: step for words, step in marks.items() if step}


class Board:
    """The newest jobs, and curves of watched ones. Belongs to one event loop."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._curves: dict[str, Curve] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._differences: dict[str, float | None] = {}

    async def jobs(self) -> list[TuningJob]:
        """The newest jobs, newest first. Raises HotloraError when the service does not answer."""
        return list((await self._client.list_tuning_jobs(page_size=MAX_JOBS)).tuning_jobs)

    async def quantisation_differences(self, jobs: Sequence[TuningJob]) -> Mapping[str, float]:
        """What serving on the 16-bit base changes, by version, where `jobs` made one on a 4-bit base. Asked
        once for each version. Raises HotloraError when the service does not answer."""
        made = [job.adapter_version for job in jobs if job.technique == TECHNIQUE_QLORA]
        for name in made:
            if not name or name in self._differences:
                continue
            try:
                version = await self._client.get_adapter_version(name)
            except NotFound:  # its adapter was deleted
                self._differences[name] = None
                continue
            if version.HasField("verification"):
                proof = version.verification
                told = proof.HasField("quantisation_difference")
                self._differences[name] = proof.quantisation_difference if told else None
            elif version.state == AdapterVersion.STATE_FAILED:
                self._differences[name] = None
        known = {name: self._differences.get(name) for name in made}
        return {name: difference for name, difference in known.items() if difference is not None}

    def curve(self, name: str) -> Curve:
        """The curve of a job so far; from the first call on it is followed until the job ends."""
        curve = self._curves.setdefault(name, Curve())
        if name not in self._watches:
            self._watches[name] = asyncio.create_task(self._follow(name, curve))
        return curve

    async def _follow(self, name: str, curve: Curve) -> None:
        try:
            async for update in self._client.watch_tuning_job(name, after_sequence=curve.last_sequence):
                curve.take(update)
        except HotloraError:
            # The service was away for longer than the client retries: the next look goes on at the cursor.
            self._watches.pop(name, None)
