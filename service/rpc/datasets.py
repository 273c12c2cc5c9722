"""DatasetService: takes a stream of parts apart, says what else to read, and shows datasets. Files are the
store's."""

import asyncio
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence, Set
from contextlib import ExitStack, aclosing
from typing import BinaryIO

from hotlora import inspection
from hotlora.v1 import dataset_service_pb2 as pb
from hotlora.v1 import dataset_service_pb2_grpc as pb_grpc
from service.datasets import DatasetStore, Hub, HubSplit, LocalFiles, chunks_of
from service.errors import Exhausted, FieldViolation, InvalidRequest
from service.registry import Registry
from service.rpc import conversion, dataset_conversion
from service.rpc.boundary import Context
from service.rpc.findings import Findings

DEFAULT_PREVIEW_ROWS = 5
DEFAULT_SPLIT = "train"


class DatasetServicer(pb_grpc.DatasetServiceServicer):
    """See the proto."""

    def __init__(
        self, *, registry: Registry, store: DatasetStore, local_files: LocalFiles, hub: Hub | None
    ) -> None:
        """Without a `hub`, none is read."""
        self._registry = registry
        self._store = store
        self._local_files = local_files
        self._hub = hub

    async def UploadDataset(
        self, requests: AsyncIterator[pb.UploadDatasetRequest], context: Context
    ) -> pb.Dataset:
        header = await self._header(requests)
        self._store.refuse_if_larger(header.size_bytes, field="header.size_bytes")
        return await self._taken_in(header, _chunks(requests))

    async def ImportDataset(self, request: pb.ImportDatasetRequest, context: Context) -> pb.Dataset:
        findings = Findings()
        with ExitStack() as opened:
            file = await self._examine(request, findings, opened)
            findings.raise_any()
            if file is None:
                async with aclosing(self._of_hub(request)) as rows:
                    return await self._taken_in(request.header, rows, idle_seconds=math.inf)
            self._store.refuse_if_larger(os.fstat(file.fileno()).st_size, field="local_path")
            async with aclosing(chunks_of(file)) as chunks:
                return await self._taken_in(request.header, chunks)

    async def problems(self, request: pb.ImportDatasetRequest, broken: Set[str]) -> Sequence[FieldViolation]:
        """What is wrong besides the fields that are `broken`, and that `request` comes without."""
        findings = Findings(broken)
        with ExitStack() as opened:
            await self._examine(request, findings, opened)
        return findings.violations

    async def _examine(
        self, request: pb.ImportDatasetRequest, findings: Findings, opened: ExitStack
    ) -> BinaryIO | None:
        """The file that is named, which `opened` closes; None for a split of the hub."""
        findings.add(self._store.unknown_base(request.header.base_model))
        if request.header.dataset_id and not request.header.validate_only:
            free = self._store.refuse_if_taken(request.header.dataset_id)
            await findings.look_up("header.dataset_id", free)
        if request.HasField("hub") and self._hub is None:
            rule = "this service reads no repositories of the hub; HOTLORA_HUB_DATASETS allows it"
            findings.add([FieldViolation(field="hub", description=rule)])
        if not request.local_path:
            return None
        opening = asyncio.to_thread(self._local_files.open, request.local_path)
        file = await findings.look_up("local_path", opening)
        return None if file is None else opened.enter_context(file)

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> pb.Dataset:
        return dataset_conversion.dataset_message(
            await self._registry.get_dataset(conversion.id_of(request.name))
        )

    async def ListDatasets(
        self, request: pb.ListDatasetsRequest, context: Context
    ) -> pb.ListDatasetsResponse:
        page = await self._registry.list_datasets(
            limit=conversion.limit_of(request.page_size), cursor=request.page_token
        )
        return pb.ListDatasetsResponse(
            datasets=map(dataset_conversion.summary_message, page.rows), next_page_token=page.next_cursor
        )

    async def DeleteDataset(
        self, request: pb.DeleteDatasetRequest, context: Context
    ) -> pb.DeleteDatasetResponse:
        await self._store.delete(conversion.id_of(request.name))
        return pb.DeleteDatasetResponse()

    async def PreviewDataset(
        self, request: pb.PreviewDatasetRequest, context: Context
    ) -> pb.PreviewDatasetResponse:
        rows = await self._store.preview(
            conversion.id_of(request.name), max_rows=request.max_rows or DEFAULT_PREVIEW_ROWS
        )
        return pb.PreviewDatasetResponse(rows=map(inspection.preview_row_message, rows))

    async def _taken_in(
        self, header: pb.UploadHeader, chunks: AsyncIterator[bytes], idle_seconds: float | None = None
    ) -> pb.Dataset:
        wish = inspection.wish_of(header)
        if header.validate_only:
            report, kind, preview = await self._store.look_at(
                wish=wish, chunks=chunks, base_model=header.base_model, idle_seconds=idle_seconds
            )
            counter = self._store.counter(header.base_model)
            return inspection.looked_at_message(header, report, kind, preview, base_model=counter)
        row = await self._store.upload(
            dataset_id=header.dataset_id,
            display_name=header.display_name,
            wish=wish,
            chunks=chunks,
            base_model=header.base_model,
            idle_seconds=idle_seconds,
        )
        return dataset_conversion.dataset_message(row)

    def _of_hub(self, request: pb.ImportDatasetRequest) -> AsyncGenerator[bytes, None]:
        assert self._hub is not None
        return self._hub.chunks(
            HubSplit(
                repository=request.hub.repository,
                config=request.hub.config,
                split=request.hub.split or DEFAULT_SPLIT,
                max_rows=request.hub.max_rows,
                columns=tuple(sorted(set(request.header.mapping.values()))),
            )
        )

    async def _header(self, requests: AsyncIterator[pb.UploadDatasetRequest]) -> pb.UploadHeader:
        seconds = self._store.limits.idle_seconds
        try:
            async with asyncio.timeout(seconds):
                first = await anext(requests, None)
        except TimeoutError:
            raise Exhausted("UPLOAD_STALLED", f"no header came for {seconds:g} s; upload again") from None
        if first is None or not first.HasField("header"):
            raise _misplaced("the first message must be the header")
        return first.header


async def _chunks(requests: AsyncIterator[pb.UploadDatasetRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if not request.HasField("chunk"):
            raise _misplaced("only the first message may be the header; chunks follow it")
        yield request.chunk


def _misplaced(rule: str) -> InvalidRequest:
    return InvalidRequest([FieldViolation(field="header", description=rule)])
