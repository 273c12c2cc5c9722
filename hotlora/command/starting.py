"""`up`: brings up service and page, says what it waits for, and ends all of it in order.

The engine is the service's child. Settings go to the programs as HOTLORA_* variables and nowhere else.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hotlora import errors, home, orphans
from hotlora.aio import AsyncClient
from hotlora.calls import DEFAULT_ADDRESS
from hotlora.command.failing import ExitCode
from hotlora.command.voice import JsonVoice, Voice
from hotlora.stack import GRACE_SECONDS, Program, Stack
from hotlora.v1.chat_service_pb2 import Engine, ListModelsResponse

_LOOK_EVERY_SECONDS: Final = 0.5
_ORPHANS_GRACE_SECONDS: Final = 5.0
_STARTING: Final = "the service is starting (the very first time it prepares the base model)"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where everything will be."""

    environment: Mapping[str, str]
    """The HOTLORA_* variables of the programs."""
    home: Path
    grpc_address: str
    gateway_address: str
    page_address: str | None
    """None: without the page."""

    def programs(self) -> list[Program]:
        """What has to run."""
        modules = ["service"] if self.page_address is None else ["service", "ui"]
        return [
            Program(
                title={"service": "service", "ui": "page"}[module],
                command=(sys.executable, "-m", module),
                environment=self.environment,
                log_path=self.home / "logs" / f"{module}.log",
            )
            for module in modules
        ]

    def urls(self) -> dict[str, str]:
        """Where a person finds what."""
        urls = {} if self.page_address is None else {"page": f"http://{self.page_address}"}
        return {**urls, "gateway": f"http://{self.gateway_address}/v1", "grpc": self.grpc_address}


def plan(flags: Mapping[str, str], *, with_page: bool, environment: Mapping[str, str] = os.environ) -> Plan:
    """The plan from flags over environment over defaults. A port 0 is replaced by one that is free now."""
    settings = {**environment, **flags}
    grpc_address = _with_port(settings.get("HOTLORA_GRPC_ADDRESS", DEFAULT_ADDRESS))
    gateway_address = _with_port(settings.get("HOTLORA_GATEWAY_ADDRESS", "127.0.0.1:8080"))
    page_address = _with_port(settings.get("HOTLORA_UI_ADDRESS", "127.0.0.1:7860"))
    return Plan(
        environment={
            **flags,
            "HOTLORA_GRPC_ADDRESS": grpc_address,
            "HOTLORA_GATEWAY_ADDRESS": gateway_address,
            "HOTLORA_UI_ADDRESS": page_address,
            "HOTLORA_ADDRESS": grpc_address,
        },
        home=Path(settings.get("HOTLORA_HOME", ".hotlora")).expanduser(),
        grpc_address=grpc_address,
        gateway_address=gateway_address,
        page_address=page_address if with_page else None,
    )


def up(flags: Mapping[str, str], *, with_page: bool, as_json: bool) -> ExitCode:
    """Runs everything until it is told to stop (OK) or a program ends by itself (FAILED)."""
    chosen = plan(flags, with_page=with_page)
    voice = JsonVoice() if as_json else Voice()
    return run(
        chosen.programs(),
        ready=lambda: ready(chosen, voice.waiting),
        urls=chosen.urls(),
        voice=voice,
    )


def run(
    programs: list[Program],
    *,
    ready: Callable[[], Coroutine[None, None, None]],
    urls: Mapping[str, str],
    voice: Voice,
    grace_seconds: float = GRACE_SECONDS,
) -> ExitCode:
    """Runs the programs until told to stop; `ready` returns once they can be used."""
    orphans.adopt()
    try:
        return asyncio.run(_run(programs, ready, urls, voice, grace_seconds))
    finally:
        orphans.end(grace_seconds=_ORPHANS_GRACE_SECONDS)


async def ready(chosen: Plan, waiting: Callable[[str], None]) -> None:
    """Returns when the engine answers and the page is there, of the service that this process started; tells
    `waiting` what is still awaited."""
    async with AsyncClient(chosen.grpc_address) as client:
        while (what := await _missing(client, chosen)) is not None:
            waiting(what)
            await asyncio.sleep(_LOOK_EVERY_SECONDS)


async def _missing(client: AsyncClient, chosen: Plan) -> str | None:
    """What is not there yet; None when all is."""
    found = home.holder(chosen.home)
    # Without this, a service of somebody else at the same port would be taken for ours, which cannot start.
    if found is None or found.parent_pid != os.getpid() or not found.grpc_address:
        return _STARTING
    try:
        models = await client.list_models()
    except (errors.Unavailable, errors.DeadlineExceeded):
        return _STARTING
    if (away := _away(models)) is not None:
        return away
    if chosen.page_address is not None and not await _listens(chosen.page_address):
        return "the page is starting"
    return None


def _away(models: ListModelsResponse) -> str | None:
    """Which engine is waited for; None where each base model has one."""
    if models.engine.state != Engine.STATE_READY:
        return models.engine.message or "the engine is starting"
    for base in models.models:
        if not base.adapter_version and not base.available:
            said = [each.message for each in models.replicas if each.base_model == base.id and each.message]
            return f"{base.id}: {said[0] if said else 'the engine is starting'}"
    return None


async def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except OSError:
        return False
    writer.close()
    return True


async def _run(
    programs: list[Program],
    ready: Callable[[], Coroutine[None, None, None]],
    urls: Mapping[str, str],
    voice: Voice,
    grace_seconds: float,
) -> ExitCode:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    async with Stack(programs, grace_seconds=grace_seconds) as stack:
        ended = asyncio.create_task(stack.first_end())
        stopped = asyncio.create_task(stop.wait())
        started = asyncio.create_task(ready())
        await asyncio.wait({ended, stopped, started}, return_when=asyncio.FIRST_COMPLETED)
        if started.done() and not ended.done() and not stopped.done():
            started.result()
            voice.ready(urls)
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in (started, ended, stopped):
            task.cancel()
        await asyncio.gather(started, stopped, return_exceptions=True)
        if stopped.done() and not stopped.cancelled():
            voice.stopping()
        else:
            voice.ended(await ended)
        # From here on a second signal means: now.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stack.hurry)
    return ExitCode.OK if stop.is_set() else ExitCode.FAILED


def _with_port(address: str) -> str:
    """The address, with a port that is free now in the place of 0."""
    host, _, port = address.rpartition(":")
    if port != "0":
        return address
    with socket.socket() as probe:
        probe.bind((host, 0))
        return f"{host}:{probe.getsockname()[1]}"
