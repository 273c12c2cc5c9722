"""One whole model's engine: from before its start, through proofs, to its end.

Decides neither when it starts nor when it stops: `service.serving.own_engines` does.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

import structlog

from service.changes import Changes
from service.engine.command import Room, own_engine_command, room_for_own_engine
from service.engine.face import Engine, EngineState
from service.engine.packages import EngineCannotStartError
from service.engine.supervisor import Supervisor
from service.engine.wire import unavailable
from service.errors import HotloraError, Unavailable
from service.metrics import Metrics
from service.registry import Registry, VersionRow, VersionState
from service.serving import onboarding
from service.serving.bases import Bases
from service.serving.onboarding import Candidate, RejectedError, Rejection
from service.serving.proof import Prover
from service.serving.served import Proven, Served
from service.settings import Settings
from trainer.config import BaseModel

_log = structlog.get_logger(__name__)

TOPIC = "own-engines"
"""Of `Changes`: a whole model became ready, or will not."""
RETRY_SECONDS = 10.0
"""An engine takes longer to start, and asking again is cheap."""
_STARTS = 2
"""An engine that died so often before its first token will not do better the next time."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How patient it is. All in seconds."""

    period: float = 5.0
    """Between two looks, where nothing changes."""
    rest: float = 5.0
    """After an attempt without an outcome."""
    memory: float = 120.0
    """How long a proof waits for memory: a training run that ends gives its back."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """What every engine of a whole model is made with."""

    registry: Registry
    served: Served
    bases: Bases
    """One of the engines of a whole model's base is measured beside its own."""
    settings: Settings
    changes: Changes
    prover: Prover
    metrics: Metrics
    new_engine: Callable[[BaseModel], Engine] | None = None
    """None: a supervised vLLM on a free port of loopback."""
    room: Callable[[Settings, BaseModel], Room] = room_for_own_engine
    """May block, and raise EngineCannotStartError."""
    timing: Timing = Timing()
    clock: Callable[[], float] = monotonic
    wall_clock: Callable[[], float] = time.time


class OwnEngine:
    """A whole model and its engine."""

    def __init__(self, row: VersionRow, means: Means) -> None:
        self.row = row
        """As this life has moved it."""
        self.used = means.clock()
        """Monotonic seconds of its last use."""
        self.engine: Engine | None = None
        """While it runs."""
        self._means = means
        self._base = means.bases.of(row.base_model)

    async def live(self) -> None:
        """Start, prove, and prove again whenever the engine is a new one. Ends by an exception only."""
        started = monotonic()
        candidate = await onboarding.examine(
            self.row,
            artifacts_dir=self._means.settings.artifacts_dir,
            base=self._base.model,
            rendering=self._base.renderer.contract(),
            max_rank=0,
        )
        model = BaseModel(name=self.row.model, path=candidate.directory, revision=candidate.manifest.digest)
        await self._insist_on_memory(model)
        async with self._running(model) as engine:
            while True:
                await self._ready(engine)
                self._means.metrics.loaded(engine.name, model.name)
                if self.row.state == VersionState.PENDING:
                    self.row = await self._means.registry.move_version(self.row, VersionState.VERIFYING)
                try:
                    await self._prove(candidate, engine, started)
                except Unavailable as error:  # this engine died, or the base's, which is measured too
                    _log.info("no outcome yet", model=model.name, message=error.message)
                    await asyncio.sleep(self._means.timing.rest)
                    continue
                generation = engine.generation
                while engine.state is EngineState.READY and engine.generation == generation:
                    seen = self._means.changes.seen("engine")
                    await self._means.changes.wait("engine", seen, timeout_seconds=self._means.timing.period)
                _log.warning("the engine of a whole model is gone", model=model.name, generation=generation)
                self._means.served.remove(model.name)

    async def _insist_on_memory(self, model: BaseModel) -> None:
        """Raises Unavailable where its engine would not fit. A proof waits a while first: what is trained
        gives its memory back soon; then it raises RejectedError."""
        deadline = self._means.clock() + self._means.timing.memory
        while (room := await self._room(model)).needed_bytes > room.available_bytes:
            message = (
                f"an engine of its own needs {room.needed_bytes / (1 << 30):.1f} GiB of {room.kind}, and "
                f"{room.available_bytes / (1 << 30):.1f} GiB are available"
            )
            if self.row.state == VersionState.ACTIVE:
                raise Unavailable("NOT_ENOUGH_MEMORY", message, retry_seconds=RETRY_SECONDS)
            if self._means.clock() >= deadline:
                raise RejectedError(Rejection.LOAD_REFUSED, f"{message}; free some and load it again")
            await asyncio.sleep(self._means.timing.rest)

    async def _room(self, model: BaseModel) -> Room:
        try:
            return await asyncio.to_thread(self._means.room, self._means.settings, model)
        except EngineCannotStartError as error:
            raise self._without_engine(str(error)) from error

    @asynccontextmanager
    async def _running(self, model: BaseModel) -> AsyncIterator[Engine]:
        """An engine for `model`; gone afterwards."""
        engine = (self._means.new_engine or self._supervisor)(model)
        task = asyncio.create_task(engine.run())
        self.engine = engine
        try:
            yield engine
        finally:
            self.engine = None
            task.cancel()
            await asyncio.wait([task])

    async def _ready(self, engine: Engine) -> None:
        """Wait for the first token. Where the engine dies again and again before it, raises RejectedError if
        it was never proven, and else Unavailable: then it is the machine that changed."""
        last = engine.generation + _STARTS
        while engine.state is not EngineState.READY:
            if engine.state is EngineState.DOWN and engine.generation >= last:
                raise self._without_engine(engine.message)
            seen = self._means.changes.seen("engine")
            await self._means.changes.wait("engine", seen, timeout_seconds=self._means.timing.period)

    def _without_engine(self, message: str) -> RejectedError | Unavailable:
        if self.row.state == VersionState.ACTIVE:
            return Unavailable("ENGINE_UNAVAILABLE", message, retry_seconds=RETRY_SECONDS)
        return RejectedError(Rejection.LOAD_REFUSED, f"its engine does not start: {message}")

    async def _prove(self, candidate: Candidate, engine: Engine, started: float) -> None:
        """Raises RejectedError, and Unavailable where an engine was away meanwhile."""
        model, generation = candidate.model, engine.generation
        base = self._base.routes.base(self._base.fleet.any_ready)
        comparison = await onboarding.prove(
            candidate,
            base=base.on(base.client),
            served=self._base.routes.of(model, engine).on(engine.client),
            generation=base.engine.generation,
            prover=self._means.prover,
        )
        if engine.generation != generation:
            raise unavailable("the engine was restarted during the proof")
        self._means.served.add(model, Proven(engine=engine, generation=generation, loads=0))
        self.used = self._means.clock()
        self._means.metrics.verified(engine.name, model)
        _log.info("proven", model=model, message=comparison.message)
        if self.row.state == VersionState.VERIFYING:
            verification = onboarding.verification(
                comparison, seconds=monotonic() - started, time=self._means.wall_clock()
            )
            self.row = await self._means.registry.move_version(
                self.row, VersionState.ACTIVE, verification=verification
            )
        self._means.changes.notify(TOPIC)

    async def reject(self, error: RejectedError) -> None:
        onboarding.count_rejection(self._means.metrics, self.row.model, self.row.model, error)
        _log.warning("rejected", model=self.row.model, reason=error.reason, message=error.message)
        comparison = error.comparison
        try:
            await self._means.registry.move_version(
                self.row,
                VersionState.FAILED,
                failure=(error.reason, error.message),
                verification=None
                if comparison is None
                else onboarding.verification(comparison, seconds=0.0, time=self._means.wall_clock()),
            )
        except HotloraError as conflict:
            _log.info("rejected too late", model=self.row.model, message=conflict.message)

    def _supervisor(self, model: BaseModel) -> Engine:
        settings = self._means.settings.model_copy(update={"engine_port": 0})
        return Supervisor(
            settings=settings,
            base=model,
            changes=self._means.changes,
            name=model.name,
            command=lambda port, api_key: own_engine_command(settings, model, port=port, api_key=api_key),
            log_name=f"engine-{model.name}.log",
        )
