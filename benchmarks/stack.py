"""Real stacks for benchmarks: engine and service on free loopback ports, in a home of their own."""

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from hotlora.aio import AsyncClient
from hotlora.errors import HotloraError
from hotlora.stack import Program, Stack
from hotlora.v1.chat_service_pb2 import Engine
from service.base_model import resolve_base_model
from service.engine.command import vllm_command
from service.engine.process import spawn_leashed
from service.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 300.0
LOOK_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class RunningStack:
    """Where everything is."""

    client: AsyncClient
    gateway_url: str
    base_model: str
    home: Path
    engine_url: str = ""
    """Empty when the service keeps the engine to itself."""
    engine_api_key: str = ""


def free_port() -> int:
    """A loopback port that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Prepare = Callable[[Path], Awaitable[object]]
"""Puts into a home what is to be there before the service runs."""


def settings_for(home: Path, **others: int) -> Settings:
    """Settings of a service below `home`, with the base models that earlier runs prepared."""
    models = Path(os.environ.get("HOTLORA_MODELS_DIR", ROOT / ".hotlora" / "models"))
    return Settings.model_validate({"home": home, "models_dir": models, **others})


@asynccontextmanager
async def supervised_stack(prepare: Prepare | None = None) -> AsyncIterator[RunningStack]:
    """A service with an engine of its own, as `make run` has it."""
    with tempfile.TemporaryDirectory() as home:
        if prepare is not None:
            await prepare(Path(home))
        async with _service(Path(home), {"HOTLORA_ENGINE_PORT": "0"}) as running:
            yield running


@asynccontextmanager
async def attached_stack(prepare: Prepare | None = None, **settings: int) -> AsyncIterator[RunningStack]:
    """A service before an engine that the benchmark can reach too; both have the settings."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        if prepare is not None:
            await prepare(home)
        async with running_engine(home, settings=settings_for(home, **settings)) as (url, key):
            given = {f"HOTLORA_{name.upper()}": str(value) for name, value in settings.items()}
            async with service_before(home, url, HOTLORA_ENGINE_API_KEY=key, **given) as running:
                yield replace(running, engine_url=url, engine_api_key=key)


@asynccontextmanager
async def service_before(home: Path, engine_url: str, **environment: str) -> AsyncIterator[RunningStack]:
    """A service that is attached to an engine."""
    async with _service(home, {"HOTLORA_ENGINE_URLS": engine_url, **environment}) as running:
        yield running


@asynccontextmanager
async def running_engine(
    home: Path, *, settings: Settings | None = None, environment: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[str, str]]:
    """vLLM as the service starts it, `environment` put over its own; gives its URL and key.

    Without the guard, which leaves open only what the service uses: benchmarks ask it as anybody else would.
    """
    settings = settings or settings_for(home)
    settings.make_directories()
    base, _ = await resolve_base_model(settings.base_model, settings.models_dir)
    port, key = free_port(), os.urandom(16).hex()
    command = vllm_command(settings, base, port=port, api_key=key)
    at = command.arguments.index("--middleware")
    command = replace(
        command,
        arguments=(*command.arguments[:at], *command.arguments[at + 2 :]),
        environment={**command.environment, **(environment or {})},
    )
    process = await spawn_leashed(command, settings.logs_dir / "engine.log")
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(START_SECONDS):
            while not await _healthy(session, url):
                await asyncio.sleep(LOOK_SECONDS)
        yield url, key
    finally:
        await process.end()


async def _healthy(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


@asynccontextmanager
async def _service(home: Path, environment: dict[str, str]) -> AsyncIterator[RunningStack]:
    address, gateway = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    settings = settings_for(home)
    program = Program(
        title="service",
        command=(sys.executable, "-m", "service"),
        environment={
            "HOTLORA_HOME": str(home),
            "HOTLORA_EVALUATION_ROWS": "0",  # would disturb what is measured
            "HOTLORA_MODELS_DIR": str(settings.models_dir),
            "HOTLORA_GRPC_ADDRESS": address,
            "HOTLORA_GATEWAY_ADDRESS": gateway,
            **environment,
        },
        log_path=home / "service.log",
    )
    async with Stack([program]), AsyncClient(address) as client:
        async with asyncio.timeout(START_SECONDS):
            base = await _ready(client)
        yield RunningStack(client=client, gateway_url=f"http://{gateway}", base_model=base, home=home)


async def _ready(client: AsyncClient) -> str:
    """Name of the base model, once the engine answers."""
    while True:
        try:
            listed = await client.list_models()
            if listed.engine.state == Engine.STATE_READY:
                return str(listed.models[0].id)
        except HotloraError:
            pass
        await asyncio.sleep(LOOK_SECONDS)
