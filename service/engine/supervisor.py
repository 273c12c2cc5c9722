"""Our own engine: started on loopback, watched by making it produce tokens, started again when it dies or
hangs.

Every start is a new generation: what was loaded before is gone, and whoever loaded it must look again.
Adapters are not known here; neither is why anybody wants an engine.
"""

import asyncio
import contextlib
import math
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from time import monotonic

import structlog

from service.changes import Changes
from service.engine.architectures import takes_adapters
from service.engine.capacity import Capacity, capacity_of
from service.engine.client import EngineClient
from service.engine.command import EngineCommand, allowed_rank, model_length, vllm_command
from service.engine.face import Abilities, EngineState
from service.engine.packages import EngineCannotStartError
from service.engine.process import EngineProcess, Spawner, spawn_leashed
from service.engine.wire import EngineRefused, unavailable
from service.errors import Unavailable
from service.settings import Settings
from trainer.config import BaseModel

_log = structlog.get_logger(__name__)

CommandBuilder = Callable[[int, str], EngineCommand]
"""Makes the command for a port and an API key."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """When an engine counts as hung, and how fast it is started again. All in seconds."""

    ready_poll_seconds: float = 0.25
    """Between two looks at an engine that is starting."""
    probe_interval_seconds: float = 5.0
    """Between two probes; none is sent when somebody got a token meanwhile."""
    probe_timeout_seconds: float = 20.0
    """For one token. A training run on the same cores slows the engine down, hardly tenfold."""
    warm_up_seconds: float = 120.0
    """For the first log-probabilities after a start, for which vLLM compiles code."""
    failures: int = 2
    """Probes in a row that must fail before the engine is ended."""
    first_backoff_seconds: float = 0.5
    last_backoff_seconds: float = 60.0
    """Doubled from the first to this, while engines die before they were healthy for `healthy_seconds`."""
    healthy_seconds: float = 60.0


class Supervisor:
    """An engine that is our child. Wears the face of `service.engine.face.Engine`."""

    supervised = True

    def __init__(
        self,
        *,
        settings: Settings,
        base: BaseModel,
        changes: Changes,
        name: str = "engine",
        command: CommandBuilder | None = None,
        log_name: str = "engine.log",
        spawner: Spawner = spawn_leashed,
        health: Health | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`command` defaults to vLLM as `service.engine.command` starts it; its output goes to `log_name`
        below the logs' directory."""
        self._settings = settings
        self._base = base
        self._changes = changes
        self._command = command or (
            lambda port, api_key: vllm_command(settings, base, port=port, api_key=api_key)
        )
        self._name = name
        self._log_path = settings.logs_dir / log_name
        self._spawner = spawner
        self._health = health or Health()
        self._clock = clock
        self._client: EngineClient | None = None
        self._max_model_length = model_length(settings, base)
        self._backoff_seconds = self._health.first_backoff_seconds
        self._ready_since = math.inf
        self._state = EngineState.STARTING
        self._message = "the engine has not been started yet"
        self._generation = 0
        self.pid: int | None = None
        """Process group of the running engine."""

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
        return allowed_rank(self._settings.engine_max_rank)

    @cached_property
    def capacity(self) -> Capacity:
        return capacity_of(self._settings, self._base)

    @cached_property
    def abilities(self) -> Abilities:
        # Looked up when somebody asks, which nobody does of a whole model's engine.
        return Abilities(adapters=takes_adapters(self._base.path))

    @property
    def max_model_length(self) -> int:
        return self._max_model_length

    @property
    def client(self) -> EngineClient:
        if self._client is None:
            raise unavailable(self._message)
        return self._client

    async def run(self) -> None:
        """Keep an engine running until cancelled; then end it and everything it started."""
        while True:
            reason = await self._live_once()
            # Engines that die at once must not eat the machine that they share with training runs.
            if self._clock() - self._ready_since >= self._health.healthy_seconds:
                self._backoff_seconds = self._health.first_backoff_seconds
            self._ready_since = math.inf
            self._tell(EngineState.DOWN, f"{reason}; it is started again in {self._backoff_seconds:g} s")
            await asyncio.sleep(self._backoff_seconds)
            self._backoff_seconds = min(self._backoff_seconds * 2, self._health.last_backoff_seconds)

    async def _live_once(self) -> str:
        """One engine from start to end; says why it ended."""
        port = self._settings.engine_port or _free_port()
        if not _is_free(port):
            return f"port {port} of the engine is taken by another program (HOTLORA_ENGINE_PORT sets another)"
        api_key = secrets.token_urlsafe(32)
        self._generation += 1
        self._tell(EngineState.STARTING, "the engine is starting")
        try:
            command = await asyncio.to_thread(self._command, port, api_key)
            process = await self._spawner(command, self._log_path)
        except (EngineCannotStartError, OSError) as error:
            return f"the engine cannot be started: {error}"
        self.pid = process.pid
        url = f"http://127.0.0.1:{port}"
        client = self._client = EngineClient(
            url=url, api_key=api_key, base=self._base.name, capacity=self.capacity, clock=self._clock
        )
        try:
            return await self._watch(process, client)
        finally:
            self._client, self.pid = None, None
            # Shielded: a cancelled service must not leave an engine behind because it was cancelled twice.
            await asyncio.shield(_end(process, client))

    async def _watch(self, process: EngineProcess, client: EngineClient) -> str:
        """Return when the engine died or should; says why."""
        death = asyncio.ensure_future(process.wait())
        life = asyncio.ensure_future(self._probe_until_hung(client))
        try:
            await asyncio.wait({death, life}, return_when=asyncio.FIRST_COMPLETED)
            if death.done():
                return f"the engine ended with status {death.result()}; logs/{self._log_path.name} says why"
            return life.result()
        finally:
            life.cancel()
            death.cancel()
            await asyncio.gather(death, life, return_exceptions=True)

    async def _probe_until_hung(self, client: EngineClient) -> str:
        start_seconds = self._settings.engine_start_timeout_seconds
        try:
            async with asyncio.timeout(start_seconds):
                await self._become_ready(client)
        except TimeoutError:
            return f"the engine gave no token within {start_seconds:g} s of its start"
        self._ready_since = self._clock()
        self._tell(EngineState.READY, "the engine is ready")
        try:
            async with asyncio.timeout(self._health.warm_up_seconds):
                await self._warm_up(client)
        except TimeoutError:
            return f"the engine gave no log-probabilities within {self._health.warm_up_seconds:g} s"
        failures = 0
        while failures < self._health.failures:
            looked = self._clock()
            await asyncio.sleep(self._health.probe_interval_seconds)
            probed = client.last_token_time >= looked or await self._probe(client)
            failures = 0 if probed else failures + 1
            if failures:
                _log.warning("engine probe failed", name=self._name, failures=failures)
        return f"the engine gave no token on {failures} probes in a row"

    async def _become_ready(self, client: EngineClient) -> None:
        while True:
            if await self._probe(client):
                break
            await asyncio.sleep(self._health.ready_poll_seconds)

    async def _warm_up(self, client: EngineClient) -> None:
        """Have vLLM compile its log-probability code, which takes seconds, while nobody waits for a proof."""
        with contextlib.suppress(Unavailable, EngineRefused):
            await client.prompt_logprobs(model=self._base.name, token_ids=tuple(range(1, 17)))

    async def _probe(self, client: EngineClient) -> bool:
        """Whether the engine produces a token on the base model, for the probe or for somebody else
        meanwhile."""
        started = self._clock()
        try:
            async with asyncio.timeout(self._health.probe_timeout_seconds):
                await client.produce_token(self._base.name)
        except (Unavailable, EngineRefused, TimeoutError):
            return client.last_token_time >= started
        return True

    def _tell(self, state: EngineState, message: str) -> None:
        if (state, message) != (self._state, self._message):
            _log.info("engine", name=self._name, state=state, generation=self._generation, message=message)
        self._state, self._message = state, message
        self._changes.notify("engine")


async def _end(process: EngineProcess, client: EngineClient) -> None:
    await client.close()
    await process.end()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False
