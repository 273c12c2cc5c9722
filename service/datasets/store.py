"""Keeps uploaded files: `datasets/<id>.jsonl`, each published by rename and recorded after that.

Nothing of a file exists until its last byte is checked. CPU and disk work runs in two worker threads, so that
uploads hold up nobody. What a row must look like is `trainer.records`, what is recorded is the registry's.
"""

import asyncio
import errno
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import structlog

from service.disk import Disk, disk_full
from service.errors import AlreadyExists, DataLoss, Exhausted, FieldViolation, InvalidRequest, NotFound
from service.registry import DatasetRow, Registry
from service.serving import Base, Bases
from trainer.config import Task
from trainer.inspection import BadRows, Draft, PreviewRow, Report, Wish, preview
from trainer.records import Kind, Limits, LineProblem

MAX_REPORTED_PROBLEMS = 20
MAX_PREVIEW_CHARACTERS = 800_000
"""A character takes at most 4 bytes, and a gRPC message at most 4 MiB."""

_PIECE_BYTES = 64 * 1024
"""Checked at once; a bad line is told that much later at most."""
_SLICE_SECONDS = 0.2
"""How long a worker thread is busy at most, or a cancelled upload would wait for it."""
_DISK_CHECK_BYTES = 16 * 1024 * 1024
_BUSY_RETRY_SECONDS = 10.0
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}

_log = structlog.get_logger(__name__)
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """How much an upload may take."""

    records: Limits = field(default_factory=Limits)
    idle_seconds: float = 30.0
    """Longest wait for the next bytes."""
    total_seconds: float = 3600.0
    """Longest upload."""
    more_problems_seconds: float = 0.5
    """How long an upload with a bad line goes on, so that more of them are told at once."""
    uploads_at_once: int = 8


class DatasetStore:
    """See the module. Belongs to one event loop and one directory."""

    def __init__(
        self,
        *,
        directory: Path,
        registry: Registry,
        bases: Bases,
        disk: Disk,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: f"dataset-{secrets.token_hex(6)}",
        limits: UploadLimits | None = None,
    ) -> None:
        self._directory = directory
        self._registry = registry
        self._bases = bases
        self._disk = disk
        self._clock = clock
        self._new_id = new_id
        self.limits = limits or UploadLimits()
        self._parser_limits = replace(self.limits.records, max_problems=MAX_REPORTED_PROBLEMS)
        self._arriving: set[str] = set()
        self._workers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="datasets")

    def path(self, dataset_id: str) -> Path:
        """Where the dataset's file is, or would be."""
        return self._directory / f"{dataset_id}.jsonl"

    async def sweep(self) -> None:
        """Remove what a killed service left: half-written files, and files that nobody registered or needs.

        To be called before the first upload.
        """
        for path in await self._in_thread(lambda: sorted(self._directory.iterdir())):
            if path.suffix == ".jsonl" and await self._is_registered(path.stem):
                continue
            _log.info("removing a file that is no dataset", path=str(path))
            await self._in_thread(path.unlink)

    def close(self) -> None:
        """End the worker threads. No upload may be running."""
        self._workers.shutdown()

    async def upload(
        self,
        *,
        dataset_id: str,
        display_name: str,
        wish: Wish,
        chunks: AsyncIterator[bytes],
        base_model: str = "",
        idle_seconds: float | None = None,
    ) -> DatasetRow:
        """Receive, check and publish a file. An empty id means that one is made; an empty `base_model` the
        default one, by which rows are rendered and counted.

        `idle_seconds` is the longest wait for a chunk; None means that of the limits, infinity that whoever
        gives the chunks has one.

        Raises AlreadyExists (before the first chunk is asked for), InvalidRequest (no such base model; one
        violation a bad line, the first 20), Exhausted (too large, too slow, too many uploads, disk nearly
        full).
        """
        dataset_id = dataset_id or self._new_id()
        base = self._base(base_model)
        with self._reserved(dataset_id):
            await self.refuse_if_taken(dataset_id)
            self._disk.refuse_if_full()
            part = self._directory / f"{dataset_id}.part"
            draft = self._draft(part, wish, base)
            try:
                with _disk_errors():
                    await self._receive(draft, chunks, idle_seconds)
                    if draft.is_refused:
                        raise _refusal(draft.problems)
                    report = await self._in_thread(draft.report)
                    row = self._row(dataset_id, display_name, wish.task, draft, report, base.name)
                    await _unbroken(self._publish(part, row))
            finally:
                await _unbroken(self._in_thread(draft.discard))
        return row

    async def look_at(
        self,
        *,
        wish: Wish,
        chunks: AsyncIterator[bytes],
        base_model: str = "",
        idle_seconds: float | None = None,
    ) -> tuple[Report, Kind | None, list[PreviewRow]]:
        """What an upload would find: the report, what the rows are, and the first of them. Keeps nothing.

        Raises InvalidRequest (no such base model), and Exhausted as `upload` does.
        """
        base = self._base(base_model)
        name = f"look-{self._new_id()}"
        with self._reserved(name):
            self._disk.refuse_if_full()
            draft = self._draft(self._directory / f"{name}.part", replace(wish, bad_rows=BadRows.DROP), base)
            try:
                with _disk_errors():
                    await self._receive(draft, chunks, idle_seconds)
                    return await self._in_thread(draft.report), draft.kind, draft.preview
            finally:
                await _unbroken(self._in_thread(draft.discard))

    def unknown_base(self, base_model: str) -> list[FieldViolation]:
        """What is wrong with the base that a header names."""
        return self._bases.unknown(base_model, field="header.base_model")

    def counter(self, base_model: str) -> str:
        """The base that counts where a header names `base_model`."""
        return self._bases.meant(base_model).name

    def refuse_if_larger(self, size_bytes: int, *, field: str) -> None:
        """Raise Exhausted, naming the field, for a file of a size that `upload` would refuse in the end."""
        most = self.limits.records.max_file_bytes
        if size_bytes > most:
            raise Exhausted(
                "FILE_TOO_LARGE",
                f"{field}: the file has {size_bytes:,} bytes, and a dataset {most:,} at most; split it",
            )

    async def refuse_if_taken(self, dataset_id: str) -> None:
        """Raise AlreadyExists for an id that is or was in use."""
        if await self._registry.dataset_id_taken(dataset_id):
            raise _taken(dataset_id, "is or was taken")

    async def delete(self, dataset_id: str) -> None:
        """Forget a dataset, then its file. Raises NotFound, WrongState (DATASET_IN_USE)."""
        await self._registry.delete_dataset(dataset_id)
        await _unbroken(self._in_thread(lambda: self.path(dataset_id).unlink(missing_ok=True)))

    async def preview(self, dataset_id: str, *, max_rows: int) -> list[PreviewRow]:
        """The first rows, fewer than asked where they would not fit a message. Raises NotFound, DataLoss."""
        row = await self._registry.get_dataset(dataset_id)
        base = self._bases.meant(row.base_model)
        try:
            return await self._in_thread(
                lambda: preview(
                    self.path(dataset_id),
                    max_rows=max_rows,
                    max_characters=MAX_PREVIEW_CHARACTERS,
                    renderer=base.renderer,
                )
            )
        except (OSError, ValueError) as error:
            _log.error("dataset is damaged", dataset_id=dataset_id, exc_info=error)
            raise DataLoss(
                "DATASET_DAMAGED",
                f"the file of dataset {dataset_id!r} is missing or damaged; upload it again under another id",
            ) from error

    async def _receive(self, draft: Draft, chunks: AsyncIterator[bytes], idle_seconds: float | None) -> None:
        """Take the file in until it ends, or until its verdict can be told."""
        idle_seconds = idle_seconds or self.limits.idle_seconds
        now = asyncio.get_running_loop().time
        ends_at, checked_bytes = now() + self.limits.total_seconds, 0
        while (chunk := await self._next(chunks, ends_at - now(), idle_seconds, draft)) is not None:
            if draft.size_bytes + len(chunk) > self.limits.records.max_file_bytes:
                raise self._too_large()
            for begin in range(0, len(chunk), _PIECE_BYTES):
                await self._in_thread(draft.receive, chunk[begin : begin + _PIECE_BYTES])
                if draft.is_refused:
                    ends_at = min(ends_at, now() + self.limits.more_problems_seconds)
                    if draft.stopped or now() >= ends_at:
                        return
            if draft.size_bytes - checked_bytes > _DISK_CHECK_BYTES:
                checked_bytes = draft.size_bytes
                self._disk.refuse_if_full()
        draft.finish()
        while not await self._in_thread(draft.work, seconds=_SLICE_SECONDS):
            pass

    async def _next(
        self, chunks: AsyncIterator[bytes], left_seconds: float, idle_seconds: float, draft: Draft
    ) -> bytes | None:
        """The next bytes; None at the file's end."""
        try:
            async with asyncio.timeout(min(idle_seconds, left_seconds)):
                return await anext(chunks, None)
        except TimeoutError:
            if draft.is_refused:
                return None
            raise self._too_slow(left_seconds < idle_seconds) from None

    async def _publish(self, part: Path, row: DatasetRow) -> None:
        path = self.path(row.id)
        await self._in_thread(_rename, part, path)
        try:
            await self._registry.create_dataset(row)
        except BaseException:
            await self._in_thread(path.unlink)
            raise

    def _base(self, name: str) -> Base:
        if wrong := self.unknown_base(name):
            raise InvalidRequest(wrong)
        return self._bases.meant(name)

    def _draft(self, part: Path, wish: Wish, base: Base) -> Draft:
        return Draft(
            path=part,
            limits=self._parser_limits,
            renderer=base.renderer,
            context_length=base.context_length,
            wish=wish,
        )

    def _row(
        self,
        dataset_id: str,
        display_name: str,
        task: Task | None,
        draft: Draft,
        report: Report,
        base_model: str,
    ) -> DatasetRow:
        if draft.kind is None or not report.rows_kept:
            raise _refusal(draft.problems)
        if task is not None and draft.kind is not Kind.CONVERSATIONS:
            raise _no_task(task, draft.kind)
        return DatasetRow(
            id=dataset_id,
            display_name=display_name,
            size_bytes=draft.size_bytes,
            sha256=draft.sha256,
            rows=report.rows_kept,
            tokens=report.tokens,
            longest_row_tokens=report.longest_row_tokens,
            create_time=self._clock(),
            kind=draft.kind,
            task=task,
            report=report,
            base_model=base_model,
        )

    @contextmanager
    def _reserved(self, dataset_id: str) -> Iterator[None]:
        if dataset_id in self._arriving:
            raise _taken(dataset_id, "is being uploaded by another call")
        if len(self._arriving) >= self.limits.uploads_at_once:
            raise Exhausted(
                "TOO_MANY_UPLOADS",
                f"{len(self._arriving)} uploads are running, which is the limit; try again later",
                retry_seconds=_BUSY_RETRY_SECONDS,
            )
        self._arriving.add(dataset_id)
        try:
            yield
        finally:
            self._arriving.discard(dataset_id)

    async def _is_registered(self, dataset_id: str) -> bool:
        try:
            await self._registry.get_dataset(dataset_id)
        except NotFound:
            return False
        return True

    def _too_large(self) -> Exhausted:
        most = self.limits.records.max_file_bytes
        return Exhausted(
            "FILE_TOO_LARGE", f"the file is larger than {most:,} bytes; split it into several datasets"
        )

    def _too_slow(self, is_total: bool) -> Exhausted:
        if is_total:
            return Exhausted("UPLOAD_TOO_LONG", f"the upload took more than {self.limits.total_seconds:g} s")
        return Exhausted("UPLOAD_STALLED", f"no bytes came for {self.limits.idle_seconds:g} s; upload again")

    async def _in_thread(
        self, function: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        """Run `function` in a worker. When cancelled, wait for it: nobody may clean up under its feet."""
        loop = asyncio.get_running_loop()
        return await _unbroken(loop.run_in_executor(self._workers, lambda: function(*args, **kwargs)))


async def _unbroken(awaitable: Awaitable[_Result]) -> _Result:
    """Await to the end even when cancelled; the cancellation goes on after that."""
    work = asyncio.ensure_future(awaitable)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        raise


def _rename(part: Path, path: Path) -> None:
    part.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL_DISK:
            raise
        raise disk_full() from error


def _taken(dataset_id: str, how: str) -> AlreadyExists:
    return AlreadyExists(
        "DATASET_ID_USED", f"dataset id {dataset_id!r} {how}; ids are never reused, choose another"
    )


def _no_task(task: Task, kind: Kind) -> InvalidRequest:
    rule = f"{task.value} is a task of conversations, but the rows are {kind.value}; leave the task out"
    return InvalidRequest([FieldViolation(field="header.task", description=rule)])


def _refusal(problems: Sequence[LineProblem]) -> InvalidRequest:
    return InvalidRequest(
        [
            FieldViolation(field=problem.place, description=f"{problem.reason}. {problem.advice}")
            for problem in problems[:MAX_REPORTED_PROBLEMS]
        ],
        reason="BAD_LINES",
    )
