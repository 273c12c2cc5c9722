"""Evaluates every version that becomes ACTIVE, and what is asked for besides: one at a time, after people.

The registry says what is to be done and who does it; a service that dies leaves its evaluation to the next
one, which goes on with the answers that are there.
"""

import asyncio
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import structlog

from service.changes import Changes
from service.engine import EngineState
from service.errors import HotloraError, NotFound, WrongState
from service.evaluation.asking import Ask, Asked, Asking, EngineAwayError
from service.evaluation.held_out import HeldOut, Piece, Question, Source, Training, held_out
from service.evaluation.questionnaire import Questionnaire, Said, questionnaire
from service.evaluation.report import Answers, Report, make_report
from service.registry import DatasetRow, EvaluationRow, JobRow, Registry, VersionRow
from service.serving import Base, Bases, Chat, Served
from trainer.config import Technique
from trainer.pacing import row_limit
from trainer.records import Kind, RecordsError
from trainer.rows import DataError

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What evaluations may take."""

    rows: int = 200
    """Held-out rows that are asked at most; 0: versions are not evaluated by themselves."""
    concurrency: int = 4
    """Answers at the same time."""
    patience_seconds: float = 600.0
    """How long the engine may give no answer."""
    beat_seconds: float = 2.0
    """Between two reports of progress."""
    silent_seconds: float = 15.0
    """An owner that reported nothing for so long is gone."""
    period_seconds: float = 5.0
    """Between two looks, where no change was heard of."""


@dataclass
class Progress:
    """How far an evaluation is."""

    total: int
    done: int = 0

    def advance(self) -> None:
        """One more answer is there."""
        self.done += 1


class _FailedError(Exception):
    """The evaluation cannot be done."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Evaluator:
    """See the module. One in each service."""

    def __init__(
        self,
        *,
        registry: Registry,
        changes: Changes,
        chat: Chat,
        served: Served,
        bases: Bases,
        datasets_dir: Path,
        limits: Limits | None = None,
        ids: Callable[[], str] = lambda: secrets.token_hex(8),
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`clock` gives seconds that only ever rise."""
        self._registry = registry
        self._changes = changes
        self._bases = bases
        self._datasets_dir = datasets_dir
        self._limits = limits or Limits()
        self._owner = ids()
        self._clock = clock
        self._asking = Asking(
            chat=chat,
            served=served,
            kept=registry.answers,
            concurrency=self._limits.concurrency,
            patience_seconds=self._limits.patience_seconds,
            clock=clock,
        )
        self._beats: dict[str, tuple[float | None, float]] = {}
        """Heartbeats of others as last seen, and since when (by our clock) they stand still."""
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Evaluate until cancelled; then what is running goes back to the queue."""
        async with asyncio.TaskGroup() as tasks:
            for topic in ("versions", "evaluations"):
                tasks.create_task(
                    self._changes.wake(self._wake, topic, period_seconds=self._limits.period_seconds)
                )
            while True:
                self._wake.clear()
                if not await self._work_once():
                    await self._wake.wait()

    async def _work_once(self) -> bool:
        """Do one evaluation; False where there is none to do."""
        evaluations = self._registry.evaluations
        try:
            if self._limits.rows:
                await evaluations.create_missing()
            await self._rescue()
            # Of a base that is away or not there, each would hold up those of the others till patience ends.
            ready = [base.name for base in self._bases if base.fleet.state is EngineState.READY]
            row = await evaluations.claim(self._owner, ready)
            if row is not None:
                await self._run(row)
        except HotloraError as error:
            _log.warning("could not evaluate", reason=error.reason, message=error.message)
            return False
        return row is not None

    async def _rescue(self) -> None:
        """Put back what an owner left that has fallen silent."""
        now = self._clock()
        for row in await self._registry.evaluations.running():
            beat, since = self._beats.get(row.id, (None, now))
            if beat != row.heartbeat_time:
                self._beats[row.id] = (row.heartbeat_time, now)
            elif now - since >= self._limits.silent_seconds:
                del self._beats[row.id]
                await self._registry.evaluations.requeue(row)

    async def _run(self, row: EvaluationRow) -> None:
        """Evaluate, and say how it ended."""
        evaluations = self._registry.evaluations
        progress = Progress(total=0)
        beats = asyncio.create_task(self._beat(row, progress))
        try:
            report = await self._evaluate(row, progress)
        except asyncio.CancelledError:
            await evaluations.requeue(row)
            raise
        except _FailedError as error:
            await evaluations.fail(row, error.reason, error.message)
        except Exception:
            _log.exception("a fault of ours", evaluation=row.id)
            await evaluations.fail(row, "INTERNAL", "The evaluation failed by a fault of ours; see the log.")
        else:
            await evaluations.progress(row, progress.done, progress.total)
            await evaluations.succeed(row, report.encode())
            _log.info("evaluated", evaluation=row.id, message=report.summary)
        finally:
            beats.cancel()

    async def _beat(self, row: EvaluationRow, progress: Progress) -> None:
        while True:
            try:
                await self._registry.evaluations.progress(row, progress.done, progress.total)
            except HotloraError as error:
                _log.warning("could not report", evaluation=row.id, message=error.message)
            await asyncio.sleep(self._limits.beat_seconds)

    async def _evaluate(self, row: EvaluationRow, progress: Progress) -> Report:
        version = await self._version(row)
        base = self._base(version)
        held = await self._held_out(row, base)
        asks = await asyncio.to_thread(
            questionnaire,
            held,
            base.renderer,
            context_length=base.context_length,
            costly_places=version.technique is Technique.PROMPT_TUNING,
        )
        progress.total = 2 * asks.size
        rendering = json.dumps(base.renderer.contract(), sort_keys=True)
        unadapted = Asked(model=base.name, weights=base.model.revision, rendering=rendering)
        adapted = Asked(model=version.model, weights=version.digest, rendering=rendering)
        before = await self._answers(unadapted, asks, progress)
        after = await self._answers(adapted, asks, progress)
        try:
            report = await asyncio.to_thread(_report, held, before, after)
        except ValueError as error:
            raise _FailedError("OTHER_TASK", f"the rows do not fit the dataset's task: {error}") from error
        # A base is asked once for all its versions; nobody asks a version the same again.
        await self._registry.answers.forget(version.digest)
        return report

    async def _version(self, row: EvaluationRow) -> VersionRow:
        try:
            return await self._registry.get_version(row.adapter_id, row.number)
        except NotFound as error:
            raise _FailedError("VERSION_NOT_SERVED", error.message) from error

    def _base(self, version: VersionRow) -> Base:
        try:
            return self._bases.of(version.base_model)
        except WrongState as error:
            raise _FailedError("VERSION_NOT_SERVED", f"{version.model}: {error.message}") from error

    async def _held_out(self, row: EvaluationRow, base: Base) -> HeldOut:
        try:
            lineage = () if row.job_id is None else await self._registry.lineage(row.job_id)
            trained_on = [await self._registry.get_dataset(job.dataset_id) for job in lineage]
            asked = await self._registry.get_dataset(row.dataset_id)
            source = Source(
                trainings=tuple(
                    self._training(job, dataset, base)
                    for job, dataset in zip(lineage, trained_on, strict=True)
                ),
                other_path=None if row.from_validation_split else self._path(row.dataset_id),
                task=asked.task or next((dataset.task for dataset in trained_on), None),
                plain_text=asked.kind is Kind.TEXT,
                max_length=base.context_length,
            )
            limit = self._limits.rows or Limits.rows
            return await asyncio.to_thread(held_out, source, limit, base.renderer)
        except (NotFound, OSError) as error:
            raise _FailedError(
                "DATASET_GONE",
                "a dataset that it needs was deleted: the one to ask, or one that was trained on",
            ) from error
        except (RecordsError, DataError) as error:
            raise _FailedError("DATASET_GONE", f"a dataset that it needs cannot be read: {error}") from error

    def _training(self, job: JobRow, dataset: DatasetRow, base: Base) -> Training:
        settings = job.hyperparameters
        return Training(
            path=self._path(dataset.id),
            validation_fraction=settings.validation_fraction,
            seed=settings.seed,
            plain_text=dataset.kind is Kind.TEXT,
            max_length=row_limit(settings, job.technique, base.context_length),
        )

    def _path(self, dataset_id: str) -> Path:
        return self._datasets_dir / f"{dataset_id}.jsonl"

    async def _answers(self, who: Asked, asks: Questionnaire, progress: Progress) -> Said:
        async def ask(part: Sequence[Ask]) -> tuple[str | None, ...]:
            return await self._asking.ask(who, part, progress.advance)

        try:
            return Said(
                free=await ask(asks.free),
                constrained=await ask(asks.constrained),
                measured=await ask(asks.measured),
                rejected=await ask(asks.rejected),
                general=await ask(asks.general),
            )
        except EngineAwayError as error:
            raise _FailedError(
                "ENGINE_AWAY",
                f"the engine gave no answer for {self._limits.patience_seconds:.0f} seconds ({error}); "
                "ask for the evaluation again once it answers",
            ) from error
        except (NotFound, WrongState) as error:
            raise _FailedError("VERSION_NOT_SERVED", error.message) from error


def _report(held: HeldOut, base: Said, adapter: Said) -> Report:
    """Over the questions that both models answered in every way; the perplexity over what both told."""
    asked: list[Question | Piece] = [*held.questions, *held.pieces]
    rows = len(asked)
    answered = [part for said in (base, adapter) for part in (said.free, said.constrained) if part]
    kept = [index for index in range(rows) if all(part[index] is not None for part in answered)]
    told = [part for said in (base, adapter) for part in (said.measured, said.rejected) if part]
    measured = [index for index in kept if told and all(part[index] is not None for part in told)]
    if held.pieces:
        kept = measured
    if rows and not kept:
        raise _FailedError("NO_ANSWERS", "the engine refused every row; they may be longer than its context")
    return make_report(
        held,
        [asked[index] for index in kept],
        _of_model(base, kept, measured),
        _of_model(adapter, kept, measured),
        rows - len(kept),
    )


def _of_model(said: Said, kept: list[int], measured: list[int]) -> Answers:
    def chosen(part: tuple[str | None, ...], indices: list[int]) -> tuple[str, ...]:
        return tuple(part[index] or "" for index in indices) if part else ()

    return Answers(
        free=chosen(said.free, kept),
        constrained=chosen(said.constrained, kept),
        logprobs=_read(chosen(said.measured, measured)),
        rejected_logprobs=_read(chosen(said.rejected, measured)),
        general=tuple(answer or "" for answer in said.general),
    )


def _read(told: tuple[str, ...]) -> tuple[tuple[float, int], ...]:
    return tuple((total, count) for total, count in map(json.loads, told))
