"""The service's process: what it takes from the machine, and how it ends before it serves."""

import asyncio
import os
import resource
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.service.registry_stage import WAIT_SECONDS


@asynccontextmanager
async def service(home: Path, base: Path, *, shell: str = "") -> AsyncIterator[Process]:
    """`python -m service`, begun after `shell`, with its standard error to read."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f'{shell} exec "$0" -m service', sys.executable),
        env={
            **os.environ,
            "HOTLORA_HOME": str(home),
            "HOTLORA_BASE_MODEL": str(base),
            "HOTLORA_GRPC_ADDRESS": "127.0.0.1:0",
            "HOTLORA_GATEWAY_ADDRESS": "127.0.0.1:0",
        },
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def endless_base(directory: Path) -> Path:
    """A base model whose preparation waits for a configuration that never comes."""
    directory.mkdir()
    os.mkfifo(directory / "config.json")
    return directory


async def preparing(base: Path) -> int:
    """Wait until somebody reads the configuration of an endless base; gives the descriptor that keeps them
    waiting."""
    async with asyncio.timeout(WAIT_SECONDS):
        return await asyncio.to_thread(os.open, base / "config.json", os.O_WRONLY)


async def test_the_service_may_open_as_many_files_as_it_may_ever_get(tmp_path: Path) -> None:
    base = endless_base(tmp_path / "base")
    async with service(tmp_path / "home", base, shell="ulimit -S -n 64;") as process:
        os.close(await preparing(base))
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        process.send_signal(signal.SIGTERM)
    assert soft == hard > 64


async def test_a_service_that_is_ended_before_its_base_model_is_there_ends_at_once(tmp_path: Path) -> None:
    base = endless_base(tmp_path / "base")
    async with service(tmp_path / "home", base) as process:
        descriptor = await preparing(base)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WAIT_SECONDS):
            assert await process.wait() == 0
        # What prepared it is gone too: nobody reads any more.
        with pytest.raises(BrokenPipeError):
            os.write(descriptor, b"{}")
        os.close(descriptor)


async def test_a_second_service_in_a_home_ends_by_naming_the_first_and_touches_nothing(
    tmp_path: Path,
) -> None:
    home, base = tmp_path / "home", endless_base(tmp_path / "base")
    async with service(home, base) as first:
        descriptor = await preparing(base)
        upload = home / "datasets" / "under-way.part"
        upload.write_bytes(b"{}")
        async with service(home, base) as second, asyncio.timeout(WAIT_SECONDS):
            _, said = await second.communicate()
        assert second.returncode == 1
        assert f"error: {home} is in use by another service (process {first.pid})" in said.decode()
        assert upload.exists()
        os.close(descriptor)
