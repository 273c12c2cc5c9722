"""Splits of dataset repositories as JSON Lines, read by a child process.

What reads them is a library that was not written for strangers' files, so it gets a process of its own with
bounded memory and time (`trainer.records.hub_reader`); its rows are then checked like anybody's upload.
"""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from service.child import keep_end
from service.errors import FieldViolation, HotloraError, InvalidRequest, NotFound, Unavailable
from service.settings import without_settings
from trainer.records.hub_reader import NOT_FOUND_STATUS, UNREACHABLE_STATUS

_CHUNK_BYTES = 256 * 1024
_SAID_BYTES = 64 * 1024
STALL_SECONDS = 120.0
"""Longest wait for the next rows. The library tries for half a minute to reach the hub, several times."""
_RETRY_SECONDS = 60.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class HubSplit:
    """Which rows of which repository."""

    repository: str
    """OWNER/NAME."""
    config: str
    """Empty: the default one."""
    split: str
    max_rows: int
    """0 means all."""
    columns: tuple[str, ...]
    """Empty means all."""


class Hub:
    """Reads repositories below a directory, `OWNER/NAME`, and others from the Hugging Face hub."""

    def __init__(self, *, directory: Path, environment: Mapping[str, str] = os.environ) -> None:
        self._directory = directory
        self._environment = without_settings(environment) | {"PYTHONPATH": os.pathsep.join(sys.path)}

    async def chunks(self, wanted: HubSplit) -> AsyncGenerator[bytes, None]:
        """The rows as JSON Lines, in pieces. Closing the generator ends the child.

        Raises NotFound (repository, config or split), InvalidRequest (what is there cannot be read) and
        Unavailable (the hub cannot be reached, or sends nothing).
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "trainer.records.hub_reader"),
            *(wanted.repository, wanted.config, wanted.split, str(wanted.max_rows), *wanted.columns),
            cwd=self._directory,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        said = bytearray()
        assert process.stderr is not None, "it was asked for"
        listening = asyncio.create_task(keep_end(process.stderr, said, _SAID_BYTES))
        try:
            assert process.stdout is not None, "it was asked for"
            while chunk := await _in_time(process.stdout, wanted):
                yield chunk
            status = await process.wait()
            if status != 0:
                await listening
                raise _refusal(status, bytes(said), wanted)
        finally:
            await _end(process)
            listening.cancel()


async def _in_time(stream: asyncio.StreamReader, wanted: HubSplit) -> bytes:
    try:
        async with asyncio.timeout(STALL_SECONDS):
            return await stream.read(_CHUNK_BYTES)
    except TimeoutError:
        raise _unreachable(wanted) from None


async def _end(process: Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _refusal(status: int, said: bytes, wanted: HubSplit) -> HotloraError:
    try:
        verdict = json.loads(said.strip().rpartition(b"\n")[2])
        field, reason = str(verdict["field"]), str(verdict["reason"])
    except (ValueError, KeyError, TypeError):
        field, reason = "hub.repository", "cannot be read within bounds of memory and time"
        _log.error("reading a dataset repository failed", status=status, said=said.decode(errors="replace"))
    if status == NOT_FOUND_STATUS:
        return NotFound("HUB_DATASET_NOT_FOUND", f"{field}: {reason}")
    if status == UNREACHABLE_STATUS:
        return _unreachable(wanted)
    return InvalidRequest([FieldViolation(field=field, description=reason)])


def _unreachable(wanted: HubSplit) -> Unavailable:
    return Unavailable(
        "HUB_UNREACHABLE",
        f"the Hugging Face hub does not send {wanted.repository}; try again later, "
        "or download its files and upload one",
        retry_seconds=_RETRY_SECONDS,
    )
