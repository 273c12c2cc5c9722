"""An engine that somebody else runs, known by its URL: looked at, never started or ended.

Its process cannot be seen, so a restart is inferred: it was gone and is back, or adapters that we loaded
are gone though we did not unload them. Either raises the generation.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import structlog

from service.changes import Changes
from service.engine.capacity import Capacity
from service.engine.client import EngineClient
from service.engine.command import model_width
from service.engine.face import Abilities, EngineState
from service.engine.wire import EngineModel, EngineRefused
from service.errors import Unavailable
from service.settings import Settings, without_credentials
from trainer.config import BaseModel

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How closely an attached engine is watched."""

    interval_seconds: float = 2.0
    """Between two looks at its list of models."""
    probe_interval_seconds: float = 10.0
    """Between two tokens asked for; none is when somebody got one meanwhile."""
    probe_timeout_seconds: float = 20.0
    """For one token, or one list of models."""
    failures: int = 2
    """Looks in a row that must fail before it counts as down."""


class AttachedEngine:
    """An engine at `url`. Wears the face of `service.engine.face.Engine`."""

    supervised = False

    def __init__(
        self,
        *,
        url: str,
        settings: Settings,
        base: BaseModel,
        changes: Changes,
        watch: Watch | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        key = settings.engine_api_key
        self._name = without_credentials(url)
        self._client = EngineClient(
            url=url,
            api_key=None if key is None else key.get_secret_value(),
            base=base.name,
            clock=clock,
        )
        self._slots: int | None = None
        self._settings = settings
        self._base = base
        self._changes = changes
        self._watch = watch or Watch()
        self._clock = clock
        self._state = EngineState.STARTING
        self._message = f"looking for the engine at {self._name}"
        self._generation = 0
        self._max_model_length = settings.engine_max_model_len
        self._abilities = Abilities()

    @property
    def name(self) -> str:
        return self._name

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def restarts(self) -> int:
        return max(0, self._generation - 1)

    @property
    def message(self) -> str:
        return self._message

    @property
    def max_rank(self) -> int:
        """As set here: vLLM does not tell. Where it is too high there, loading is refused."""
        return self._settings.engine_max_rank

    @property
    def capacity(self) -> Capacity:
        """The slots as it tells, the cache as set here."""
        return Capacity(slots=self._slots, cached=self._settings.engine_max_cpu_loras or None)

    @property
    def abilities(self) -> Abilities:
        return self._abilities

    @property
    def max_model_length(self) -> int:
        return self._max_model_length

    @property
    def client(self) -> EngineClient:
        return self._client

    async def run(self) -> None:
        """Look again and again until cancelled."""
        failures = 0
        try:
            while True:
                problem = await self._look()
                failures = failures + 1 if problem else 0
                if problem and (failures >= self._watch.failures or self._state is not EngineState.READY):
                    self._tell(EngineState.DOWN, f"the engine at {self._name}: {problem}")
                await asyncio.sleep(self._watch.interval_seconds)
        finally:
            await self._client.close()

    async def _look(self) -> str | None:
        """Look once; says what is wrong with it, if anything."""
        loaded_before = self._client.loaded
        try:
            async with asyncio.timeout(self._watch.probe_timeout_seconds):
                models = await self._client.models()
                if problem := self._misfit(models):
                    return problem
                if self._clock() - self._client.last_token_time > self._watch.probe_interval_seconds:
                    await self._client.produce_token(self._base.name)
                vanished = (loaded_before & self._client.loaded) - {model.name for model in models}
                is_new = self._state is not EngineState.READY or bool(vanished)
                if is_new:
                    self._abilities = await self._ask_abilities()
                    self._slots = await self._client.adapter_slots()
        except (Unavailable, EngineRefused, TimeoutError) as error:
            return str(error) or "no answer in time"
        if is_new:
            # vLLM keeps as many in memory as it has slots for, where nobody told it to keep more.
            cached = self.capacity.cached or self._slots
            self._client.know(Capacity(slots=self._slots, cached=cached))
            self._client.forget_loaded()
            self._generation += 1
            self._tell(EngineState.READY, f"the engine at {self._name} is ready")
        return None

    async def _ask_abilities(self) -> Abilities:
        """How it was started can only be seen by trying."""
        width = await asyncio.to_thread(model_width, self._base)
        return Abilities(
            adapters=await self._client.takes_adapters(),
            embeddings=width is None
            or await self._client.takes_embeddings(model=self._base.name, width=width),
        )

    def _misfit(self, models: tuple[EngineModel, ...]) -> str | None:
        bases = {model.name: model for model in models if model.base_model is None}
        if self._base.name not in bases:
            return f"it serves {', '.join(bases) or 'no base model'}, not {self._base.name}"
        length = bases[self._base.name].max_model_length
        self._max_model_length = length or self._settings.engine_max_model_len
        return None

    def _tell(self, state: EngineState, message: str) -> None:
        if (state, message) != (self._state, self._message):
            _log.info("engine", name=self._name, state=state, generation=self._generation, message=message)
        self._state, self._message = state, message
        self._changes.notify("engine")
