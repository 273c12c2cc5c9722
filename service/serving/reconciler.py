"""Makes an engine serve what the registry wants, again and again: observe, plan, apply.

Repairs restarts, drift and half-done loads. Each version is worked on by a task of its own, and each engine
has a reconciler of its own, so that one that hangs delays no other. What may answer is in `Served`, what came
of a version elsewhere in `Outcomes`; the registry keeps states, never what is loaded.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from pathlib import Path
from time import monotonic

import structlog

from service.artifacts import ArtifactUnreadable, Form
from service.changes import Changes
from service.engine.client import EngineClient
from service.engine.face import Engine, EngineState
from service.engine.wire import EngineModel, EngineRefused, unavailable
from service.errors import Conflict, HotloraError, Unavailable
from service.jsonshape import Json
from service.metrics import Metrics
from service.registry import Registry, VersionRow, VersionState
from service.serving import onboarding
from service.serving.disposal import Disposal
from service.serving.onboarding import Candidate, RejectedError, Rejection
from service.serving.outcomes import Outcomes, Proof, Refusal, Released
from service.serving.plan import (
    WANTED,
    Action,
    Drop,
    Fail,
    Observed,
    Quarantine,
    Recheck,
    Release,
    Retire,
    Serve,
    plan,
)
from service.serving.proof import Comparison, Prover
from service.serving.routes import Routes
from service.serving.served import Proven, Served
from trainer.config import BaseModel, Technique

_log = structlog.get_logger(__name__)

MAX_ATTEMPTS_WITHOUT_OUTCOME = 3
"""After so many loads that a living engine neither did nor refused, the version counts as refused."""
_MAX_PAUSE_SECONDS = 0.25
"""Looking takes half of the time at most, and one that took long delays the next by no more than this."""
_PARALLEL_LOADS = 4
"""The engine loads one at a time anyway; more only keep it from idling while files are checked."""


class Reconciler:
    """See the module. One for each engine."""

    def __init__(
        self,
        *,
        registry: Registry,
        engine: Engine,
        served: Served,
        outcomes: Outcomes,
        disposal: Disposal,
        routes: Routes,
        artifacts_dir: Path,
        base: BaseModel,
        rendering: Json,
        changes: Changes,
        metrics: Metrics,
        period_seconds: float = 5.0,
        rest_seconds: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Looks at every change, and at least every `period_seconds`; an attempt without an outcome is
        repeated after `rest_seconds`. `rendering` is the contract of the renderer that writes the prompts."""
        self._registry = registry
        self._engine = engine
        self._served = served
        self._outcomes = outcomes
        self._disposal = disposal
        self._routes = routes
        self._artifacts_dir = artifacts_dir
        self._base = base
        self._rendering = rendering
        self._changes = changes
        self._metrics = metrics
        self._period_seconds = period_seconds
        self._rest_seconds = rest_seconds
        self._clock = clock
        self._prover = Prover()
        # More than the engine has slots for would evict each other between load and proof.
        self._slots = asyncio.Semaphore(min(_PARALLEL_LOADS, engine.capacity.slots or _PARALLEL_LOADS))
        self._wake = asyncio.Event()
        self._busy: set[str] = set()
        self._resting: set[str] = set()
        self._at_risk: dict[str, int] = {}
        """Versions being loaded or proven, with the generation that it happens on."""
        self._deaths: Counter[str] = Counter()
        self._without_outcome: Counter[str] = Counter()
        self._loads = 0
        self._done = 0
        """Pieces of work that ended."""
        self._generation = 0

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for topic in ("versions", "engine"):
                tasks.create_task(self._changes.wake(self._wake, topic, period_seconds=self._period_seconds))
            while True:
                self._wake.clear()
                began = monotonic()
                try:
                    await self._look_and_act(tasks)
                except (HotloraError, EngineRefused, OSError) as error:
                    # A proxy before an engine, a rotated key, a disk: the next look may find it well again.
                    _log.warning("could not reconcile", engine=self._engine.name, error=str(error))
                # A look grows with the number of versions, and each of them calls for several.
                await asyncio.sleep(min(monotonic() - began, _MAX_PAUSE_SECONDS))
                await self._wake.wait()

    async def _look_and_act(self, tasks: asyncio.TaskGroup) -> None:
        engine = self._engine
        if engine.state is not EngineState.READY:
            return
        generation, client, done = engine.generation, engine.client, self._done
        models = await client.models()
        rows = await self._registry.all_versions(WANTED | {VersionState.RETIRING})
        # Whole models have engines of their own, which `OwnEngines` leads.
        desired = [
            row for row in rows if row.technique is not Technique.FULL and row.base_model == self._base.name
        ]
        if engine.generation != generation:
            return
        if self._done != done:  # what was seen of a version whose work ended since is not what is
            self._wake.set()
            return
        self._blame(generation)
        for row in desired:
            self._outcomes.see(row)
            if row.state == VersionState.RETIRING:
                self._served.remove_from(engine, row.model)
        for action in plan(desired, self._observed(client, models, {row.model for row in desired})):
            self._apply(action, client, generation, tasks)
        await self._disposal.collect()

    def _observed(
        self, client: EngineClient, models: tuple[EngineModel, ...], desired: Collection[str]
    ) -> Observed:
        adapters = self._routes.held(self._engine)
        rejected = frozenset(model for model in desired if self._outcomes.refusal(model, self._engine))
        released = frozenset(model for model in desired if self._outcomes.released(model, self._engine))
        adapters |= {model.name: model.path or "" for model in models if model.base_model is not None}
        return Observed(
            loaded=adapters,
            proven=self._served.proven(self._engine),
            loads=self._loads,
            owns_engine=self._engine.supervised,
            artifacts_dir=self._artifacts_dir,
            busy=frozenset(self._busy),
            resting=frozenset(self._resting),
            evicted=frozenset(
                model.name
                for model in models
                if model.base_model is not None and not client.has_in_memory(model.name)
            ),
            answering=frozenset(
                model for model in {*adapters, *desired} if self._served.answers_on(self._engine, model)
            ),
            deaths=self._deaths + Counter(self._served.deaths(self._engine)),
            rejected=rejected,
            refused=frozenset(model for model in rejected if self._outcomes.refused(model)),
            released=released,
            released_by_all=frozenset(model for model in released if self._outcomes.released_by_all(model)),
        )

    def _blame(self, generation: int) -> None:
        """The engine is a new one: what was being loaded into an older one may have killed it."""
        for model, risked in list(self._at_risk.items()):
            if risked < generation:
                self._deaths[model] += 1
                _log.warning(
                    "the engine died while loading",
                    engine=self._engine.name,
                    model=model,
                    deaths=self._deaths[model],
                )
                del self._at_risk[model]
        if generation != self._generation:
            if (culprit := self._served.blame(self._engine)) is not None:
                _log.warning(
                    "the engine died while answering",
                    engine=self._engine.name,
                    model=culprit,
                    deaths=self._served.deaths(self._engine)[culprit],
                )
            self._without_outcome.clear()
            self._generation = generation

    def _apply(self, action: Action, client: EngineClient, generation: int, tasks: asyncio.TaskGroup) -> None:
        match action:
            case Serve(row=row):
                model, work = row.model, self._serve(row, client, generation)
            case Recheck(row=row):
                model, work = row.model, self._recheck(row, client, generation)
            case Quarantine(row=row, deaths=deaths):
                model, work = row.model, self._quarantine(row, deaths, generation)
            case Fail(row=row):
                model, work = row.model, self._fail(row)
            case Release(row=row):
                model, work = row.model, self._release(row, client, generation)
            case Retire(row=row):
                model, work = row.model, self._retire(row)
            case Drop(model=model):
                work = self._drop(model, client)
        if model in self._busy:
            # Dropped and wanted at once (loaded from another directory): the next look serves it.
            work.close()
            return
        self._busy.add(model)
        tasks.create_task(self._work(model, work))

    async def _work(self, model: str, work: Coroutine[None, None, None]) -> None:
        """Do one piece of work; whatever it meets, the others go on."""
        rest = True
        try:
            await work
            rest = False
        except Conflict:
            rest = False
        except Unavailable as error:
            _log.info("no outcome yet", engine=self._engine.name, model=model, message=error.message)
        except (HotloraError, EngineRefused, OSError) as error:
            _log.warning("could not finish", engine=self._engine.name, model=model, error=str(error))
        except Exception:
            _log.exception("a fault of ours", engine=self._engine.name, model=model)
        finally:
            self._busy.discard(model)
            self._done += 1
        if rest:
            self._resting.add(model)
            self._wake.set()
            await asyncio.sleep(self._rest_seconds)
            self._resting.discard(model)
        self._wake.set()

    async def _serve(self, row: VersionRow, client: EngineClient, generation: int) -> None:
        async with self._slots:
            self._served.remove_from(self._engine, row.model)
            started = monotonic()
            try:
                candidate = await self._examine(row)
                self._at_risk[row.model] = generation
                await self._load(candidate, client, generation)
                self._metrics.loaded(self._engine.name, row.model)
                if row.state == VersionState.PENDING:
                    row = await self._verifying(row)
                loads = self._loads
                prove = self._prove_again if row.state == VersionState.ACTIVE else self._prove
                comparison = await prove(candidate, client, generation)
            except RejectedError as error:
                self._reject(row, error, generation, monotonic() - started)
                return
            except ArtifactUnreadable:
                raise  # the engine was not asked
            except Unavailable:
                self._without_outcome[row.model] += 1
                raise
            self._settle(row.model)
            self._serves(row, generation, loads)
            _log.info("proven", engine=self._engine.name, model=row.model, message=comparison.message)
            if row.state == VersionState.VERIFYING:
                verification = onboarding.verification(
                    comparison, seconds=monotonic() - started, time=self._clock()
                )
                await self._registry.move_version(row, VersionState.ACTIVE, verification=verification)

    async def _verifying(self, row: VersionRow) -> VersionRow:
        """The PENDING `row` moved on; where another engine's reconciler was faster, what it made of it."""
        try:
            return await self._registry.move_version(row, VersionState.VERIFYING)
        except Conflict:
            present = await self._registry.get_version(row.adapter_id, row.number)
            if present.state not in {VersionState.VERIFYING, VersionState.ACTIVE}:
                raise
            return present

    async def _examine(self, row: VersionRow) -> Candidate:
        if self._without_outcome[row.model] >= MAX_ATTEMPTS_WITHOUT_OUTCOME:
            raise RejectedError(
                Rejection.LOAD_REFUSED,
                f"the engine lived on but gave no answer to loading it {MAX_ATTEMPTS_WITHOUT_OUTCOME} times",
            )
        return await onboarding.examine(
            row,
            artifacts_dir=self._artifacts_dir,
            base=self._base,
            rendering=self._rendering,
            max_rank=self._engine.max_rank,
        )

    async def _load(self, candidate: Candidate, client: EngineClient, generation: int) -> None:
        if candidate.manifest.form is Form.ADAPTER:
            self._disposal.told(candidate.manifest.digest, self._engine, generation)
        await onboarding.load(candidate, engine=self._engine, client=client, routes=self._routes)
        if candidate.manifest.form is Form.ADAPTER:
            self._loads += 1

    async def _prove(
        self, candidate: Candidate, client: EngineClient, generation: int, sequences: int | None = None
    ) -> Comparison:
        comparison = await onboarding.prove(
            candidate,
            base=self._routes.base(self._engine).on(client),
            served=self._routes.of(candidate.model, self._engine).on(client),
            generation=generation,
            prover=self._prover,
            sequences=sequences,
        )
        if self._engine.generation != generation:
            raise unavailable("the engine was restarted during the proof")
        return comparison

    async def _prove_again(self, candidate: Candidate, client: EngineClient, generation: int) -> Comparison:
        """Prove what was proven before on a part of its canary; on all of it where that part disagrees."""
        try:
            return await self._prove(candidate, client, generation, sequences=1)
        except RejectedError:
            return await self._prove(candidate, client, generation)

    async def _recheck(self, row: VersionRow, client: EngineClient, generation: int) -> None:
        """Prove an ACTIVE version again, which is loaded."""
        loads, started = self._loads, monotonic()
        try:
            candidate = await self._examine(row)
            self._at_risk[row.model] = generation
            await self._prove_again(candidate, client, generation)
        except RejectedError as error:
            self._reject(row, error, generation, monotonic() - started)
        else:
            self._settle(row.model)
            self._serves(row, generation, loads)

    def _serves(self, row: VersionRow, generation: int, loads: int) -> None:
        self._outcomes.add(row, self._engine, Proof())
        self._served.add(row.model, Proven(engine=self._engine, generation=generation, loads=loads))
        self._metrics.verified(self._engine.name, row.model)

    async def _quarantine(self, row: VersionRow, deaths: int, generation: int) -> None:
        message = (
            f"the engine died {deaths} times while loading, proving or answering as it; ask again to have it "
            "loaded"
        )
        if not self._engine.supervised:
            # Nobody here sees how it was started, and with vLLM 0.32's own operators every proof ends it.
            message += ". On a CPU that engine needs the plugin hotlora-vllm-cpu-lora"
        self._reject(row, RejectedError(Rejection.QUARANTINED, message), generation, 0.0)

    def _reject(self, row: VersionRow, error: RejectedError, generation: int, seconds: float) -> None:
        """Not on this engine. What that means for the version is seen at the next look."""
        self._served.remove_from(self._engine, row.model)
        self._served.acquit(self._engine, row.model)
        self._settle(row.model)
        onboarding.count_rejection(self._metrics, self._engine.name, row.model, error)
        _log.warning(
            "rejected",
            engine=self._engine.name,
            model=row.model,
            reason=error.reason,
            message=error.message,
        )
        verification = (
            None
            if error.comparison is None
            else onboarding.verification(error.comparison, seconds=seconds, time=self._clock())
        )
        refusal = Refusal(
            generation=generation, reason=error.reason, message=error.message, verification=verification
        )
        self._outcomes.add(row, self._engine, refusal)

    async def _fail(self, row: VersionRow) -> None:
        refusal = self._outcomes.refusal(row.model, self._engine)
        if refusal is not None and self._outcomes.refused(row.model):
            await self._registry.move_version(
                row,
                VersionState.FAILED,
                failure=(refusal.reason, refusal.message),
                verification=refusal.verification,
            )

    async def _release(self, row: VersionRow, client: EngineClient, generation: int) -> None:
        # First no new answers, then a look at the running ones: with nothing awaited between, none slips
        # through.
        self._served.remove_from(self._engine, row.model)
        if self._served.answers_on(self._engine, row.model):
            return
        await self._unload(row.model, client)
        self._settle(row.model)
        self._outcomes.add(row, self._engine, Released(generation=generation))

    async def _retire(self, row: VersionRow) -> None:
        await self._registry.move_version(row, VersionState.RETIRED)

    async def _drop(self, model: str, client: EngineClient) -> None:
        self._served.remove_from(self._engine, model)
        if self._served.answers_on(self._engine, model):
            return
        _log.info("unloading what should not be loaded", engine=self._engine.name, model=model)
        await self._unload(model, client)

    async def _unload(self, model: str, client: EngineClient) -> None:
        if not self._routes.discard(model, self._engine):
            await client.unload_adapter(model)

    def _settle(self, model: str) -> None:
        """There is an outcome: nothing that happens from now on is this version's fault."""
        self._at_risk.pop(model, None)
        self._deaths.pop(model, None)
        self._without_outcome.pop(model, None)
