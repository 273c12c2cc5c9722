"""Engines of whole models: started when somebody asks or a proof is due, proven, stopped when idle.

One task for each engine leads it from its start to its end; `service.serving.housing` decides which models
have one. Nothing is remembered as truth: after a restart of the service every whole model sleeps, and is
proven again before it answers.
"""

import asyncio
from collections.abc import Sequence

import structlog

from service.engine.face import EngineState
from service.errors import Conflict, HotloraError, Unavailable
from service.metrics import EngineStanding
from service.registry import VersionRow, VersionState
from service.serving.housing import Housed, Observed, Retire, Start, Stop, plan
from service.serving.onboarding import RejectedError, Rejection
from service.serving.own_engine import RETRY_SECONDS, TOPIC, Means, OwnEngine
from service.serving.plan import WANTED
from service.serving.turn import Serving
from trainer.config import Technique

_log = structlog.get_logger(__name__)

_NONE = "this service starts no engine for a fully fine-tuned model (HOTLORA_OWN_ENGINES is 0)"
_ASKED_SECONDS = 60.0
"""A request that would not wait still counts as asking for so long: it was told to come again."""


class OwnEngines:
    """See the module. Belongs to one event loop."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._engines: dict[str, OwnEngine] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._asked: dict[str, float] = {}
        """Sleeping models that were asked, and when last; in the order of the first asking."""
        self._stopping: set[str] = set()
        self._resting: set[str] = set()
        self._problems: dict[str, Unavailable] = {}
        """Why a model could not be started the last time."""
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Give engines and take them away until cancelled; then end them all."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                self._means.changes.wake(self._wake, "versions", period_seconds=self._means.timing.period)
            )
            while True:
                self._wake.clear()
                try:
                    await self._look_and_act(tasks)
                except HotloraError as error:
                    _log.warning("could not look after own engines", message=error.message)
                await self._wake.wait()

    async def awake(self, row: VersionRow) -> None:
        """Return once the whole model `row` answers, starting its engine where it sleeps.

        Raises Unavailable when that takes longer than the setting allows, or cannot be; WrongState when
        the version is not ACTIVE any more.
        """
        model = row.model
        if model in self._engines:
            self._engines[model].used = self._means.clock()
        if self._means.served.holds(model):
            return
        if self._means.settings.own_engines == 0:
            raise Unavailable("NO_OWN_ENGINES", f"{model}: {_NONE}", retry_seconds=_ASKED_SECONDS)
        self._problems.pop(model, None)
        deadline = self._means.clock() + self._means.settings.own_engine_wait_seconds
        while True:
            seen = self._means.changes.seen(TOPIC)
            self._asked[model] = self._means.clock()
            self._wake.set()
            left = deadline - self._means.clock()
            if left <= 0 or model in self._problems:
                raise self._problems.get(model) or self._not_yet(row)
            await self._means.changes.wait(TOPIC, seen, timeout_seconds=min(left, self._means.timing.period))
            if self._means.served.holds(model):
                self._asked.pop(model, None)
                return
            await self._means.registry.resolve_model(model)

    def serving(self, row: VersionRow) -> Serving:
        """Whether the whole model `row` answers now."""
        if self._means.served.holds(row.model):
            return Serving.READY
        if row.model in self._engines or row.state in {VersionState.PENDING, VersionState.VERIFYING}:
            return Serving.STARTING
        return Serving.ASLEEP if row.state == VersionState.ACTIVE else Serving.NONE

    def standings(self) -> list[EngineStanding]:
        """How the engines that run stand."""
        return [
            EngineStanding(
                name=own.engine.name,
                base_model=own.row.base_model,
                is_ready=own.engine.state is EngineState.READY,
                restarts=own.engine.restarts,
                adapters={},
            )
            for own in self._engines.values()
            if own.engine is not None
        ]

    def _not_yet(self, row: VersionRow) -> Unavailable:
        model = row.model
        if self._is_away(row.base_model):
            away = f"{model} is proven against {row.base_model}, which does not answer"
            return Unavailable("ENGINE_UNAVAILABLE", away, retry_seconds=RETRY_SECONDS)
        others = [other for other in self._engines if other != model]
        what = (
            f"{model} is starting on an engine of its own"
            if model in self._engines or not others
            else f"{model} waits for an engine of its own; {', '.join(others)} has it"
        )
        return Unavailable("MODEL_STARTING", what, retry_seconds=RETRY_SECONDS)

    async def _look_and_act(self, tasks: asyncio.TaskGroup) -> None:
        rows = await self._means.registry.all_versions(WANTED | {VersionState.RETIRING})
        served_here = self._means.bases.names
        desired = [row for row in rows if row.technique is Technique.FULL and row.base_model in served_here]
        for row in desired:
            if row.state == VersionState.RETIRING:
                self._means.served.remove(row.model)
        if self._means.settings.own_engines == 0:
            await self._refuse(desired)
        for action in plan(desired, self._observed(desired)):
            match action:
                case Start(row=row):
                    self._asked.pop(row.model, None)
                    own = self._engines[row.model] = OwnEngine(row, self._means)
                    self._tasks[row.model] = tasks.create_task(self._lead(own))
                case Stop(model=model):
                    if model not in self._stopping:  # an engine takes seconds to end, and is told so once
                        self._stopping.add(model)
                        self._means.served.remove(model)
                        self._tasks[model].cancel()
                case Retire(row=row):
                    try:
                        await self._means.registry.move_version(row, VersionState.RETIRED)
                    except Conflict:
                        self._wake.set()

    def _is_away(self, base_model: str) -> bool:
        return self._means.bases.of(base_model).fleet.state is not EngineState.READY

    async def _refuse(self, desired: Sequence[VersionRow]) -> None:
        for row in desired:
            if row.state in {VersionState.PENDING, VersionState.VERIFYING}:
                await OwnEngine(row, self._means).reject(RejectedError(Rejection.LOAD_REFUSED, _NONE))

    def _observed(self, desired: Sequence[VersionRow]) -> Observed:
        now = self._means.clock()
        # Without its base no whole model can be proven: its engine would take a place for nothing.
        away = {row.model for row in desired if self._is_away(row.base_model)}
        for model, own in self._engines.items():
            if self._means.served.answers(model):
                own.used = now
        self._asked = {model: asked for model, asked in self._asked.items() if now - asked < _ASKED_SECONDS}
        return Observed(
            housed={
                model: Housed(
                    proven=self._means.served.holds(model),
                    answering=self._means.served.answers(model) > 0,
                    idle_seconds=now - own.used,
                    stuck=model in away and not self._means.served.holds(model),
                )
                for model, own in self._engines.items()
            },
            asked=list(self._asked),
            resting=frozenset(self._resting | away),
            places=self._means.settings.own_engines,
            idle_limit_seconds=self._means.settings.own_engine_idle_seconds,
        )

    async def _lead(self, own: OwnEngine) -> None:
        """Lead one engine from its start to its end, whatever it meets."""
        model, rest = own.row.model, True
        try:
            await own.live()
        except RejectedError as error:
            await own.reject(error)
        except Unavailable as error:
            self._problems[model] = error
            _log.warning("a whole model could not be served", model=model, message=error.message)
        except (HotloraError, OSError) as error:
            _log.warning("a whole model could not be served", model=model, error=str(error))
        except asyncio.CancelledError:
            rest = False
            raise
        except Exception:
            _log.exception("a fault of ours", model=model)
        finally:
            self._means.served.remove(model)
            del self._engines[model], self._tasks[model]
            self._stopping.discard(model)
            self._means.changes.notify(TOPIC)
            self._wake.set()
        if rest:
            self._resting.add(model)
            await asyncio.sleep(self._means.timing.rest)
            self._resting.discard(model)
            self._wake.set()
