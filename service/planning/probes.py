"""Probes: runs `python -m trainer.probe` as a child, and keeps what it found.

A probe is worth as much as the quiet around it: none begins while a job trains, and one that a job overtakes
is ended. Figures are files below one directory, one for each base revision, technique and device.
"""

import asyncio
import contextlib
import hashlib
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from service.changes import Changes
from service.errors import Exhausted, Unavailable, WrongState
from service.planning.devices import OwnDevice
from service.registry import Registry
from trainer.config import BaseModel, Technique
from trainer.planning import Calibration

COMMAND = (sys.executable, "-m", "trainer.probe")
_RETRY_SECONDS = 30.0
_LOOK_SECONDS = 2.0
"""Between two looks for jobs that another service began; our own are seen at once."""
_LINE_BYTES = 1 << 20

_LAST_WORDS_CHARACTERS = 4_000

_log = structlog.get_logger(__name__)


class ProbeError(Exception):
    """The probe gave no figures: a fault of ours, whose text is for the log alone."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A calibration, and when it was made."""

    calibration: Calibration
    time: float
    """Seconds since the epoch."""


class Probes:
    """See the module. Belongs to one event loop."""

    def __init__(
        self,
        *,
        directory: Path,
        registry: Registry,
        changes: Changes,
        threads: int,
        command: Sequence[str] = COMMAND,
        timeout_seconds: float = 540.0,
    ) -> None:
        """`threads` are a trainer's, 0 meaning all. `command` gets the base's directory and options added."""
        self._directory = directory
        self._registry = registry
        self._changes = changes
        self._threads = threads
        self._command = tuple(command)
        self._timeout_seconds = timeout_seconds
        self._running = asyncio.Lock()

    async def known(self, base: BaseModel, device: OwnDevice) -> dict[Technique, Kept]:
        """What was measured on that device with the weights of `base`."""
        return await asyncio.to_thread(self._read_all, base, device)

    async def measure(self, base: BaseModel, technique: Technique, device: OwnDevice) -> None:
        """Probe, and keep the figures. Takes half a minute for a small base.

        Raises WrongState (a job trains), Unavailable (a job began), Exhausted (a probe runs already),
        ProbeError.
        """
        if self._running.locked():
            raise Exhausted(
                "PROBE_RUNNING", "another probe is running; ask again later", retry_seconds=_RETRY_SECONDS
            )
        async with self._running:
            if jobs := await self._registry.owned_jobs():
                raise WrongState(
                    f"tuningJobs/{jobs[0].id} is {jobs[0].state}, and a probe beside it would measure both; "
                    "plan without a probe, or when it has ended",
                    state=jobs[0].state,
                    reason="PROBE_BESIDE_TRAINING",
                )
            calibration = await self._run(base, technique)
            await asyncio.to_thread(self._write, calibration, base, device)

    async def _run(self, base: BaseModel, technique: Technique) -> Calibration:
        options = ("--technique", technique, "--threads", str(self._threads))
        process = await asyncio.create_subprocess_exec(
            *self._command,
            str(base.path),
            *options,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            limit=_LINE_BYTES,
            start_new_session=True,
        )
        answer = asyncio.create_task(process.communicate())
        disturbed = asyncio.create_task(self._until_a_job_begins())
        waited_for: set[asyncio.Task[tuple[bytes, bytes]] | asyncio.Task[None]] = {answer, disturbed}
        try:
            await asyncio.wait(waited_for, timeout=self._timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
            return self._result(process, answer, disturbed)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            disturbed.cancel()
            await asyncio.gather(answer, disturbed, return_exceptions=True)

    def _result(
        self, process: Process, answer: "asyncio.Task[tuple[bytes, bytes]]", disturbed: "asyncio.Task[None]"
    ) -> Calibration:
        if disturbed.done():
            disturbed.result()
            raise Unavailable(
                "PROBE_OVERTAKEN",
                "a job began to train, so the probe was ended; ask again when the job has ended",
                retry_seconds=_RETRY_SECONDS,
            )
        if not answer.done():
            raise ProbeError(f"the probe did not end within {self._timeout_seconds:g} seconds")
        output, complaints = answer.result()
        try:
            if process.returncode:
                raise ValueError(f"exit status {process.returncode}")
            return Calibration.decode(output.decode())
        except ValueError as error:
            last_words = complaints.decode(errors="replace")[-_LAST_WORDS_CHARACTERS:]
            raise ProbeError(f"the probe failed ({error}): {last_words}") from error

    async def _until_a_job_begins(self) -> None:
        while True:
            seen = self._changes.seen("jobs")
            if await self._registry.owned_jobs():
                return
            await self._changes.wait("jobs", seen, _LOOK_SECONDS)

    def _path(self, base: BaseModel, technique: Technique, device: OwnDevice) -> Path:
        # The arithmetic's format is in the file: it is measured, and follows from the device.
        parts = (base.revision, technique, device.kind, device.name, str(self._threads))
        return self._directory / f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}.json"

    def _read_all(self, base: BaseModel, device: OwnDevice) -> dict[Technique, Kept]:
        found = {}
        for technique in Technique:
            path = self._path(base, technique, device)
            try:
                found[technique] = Kept(
                    calibration=Calibration.decode(path.read_text()), time=path.stat().st_mtime
                )
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                _log.warning("kept figures of a probe are ignored", path=str(path), error=str(error))
        return found

    def _write(self, calibration: Calibration, base: BaseModel, device: OwnDevice) -> None:
        path = self._path(base, calibration.technique, device)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = path.with_suffix(".part")
        beside.write_text(calibration.encode())
        beside.rename(path)
