"""DatasetService: takes a stream of parts apart, and shows datasets. Files are the store's."""

import asyncio
from collections.abc import AsyncIterator

from hotlora import inspection
from hotlora.v1 import dataset_service_pb2 as pb
from hotlora.v1 import dataset_service_pb2_grpc as pb_grpc
from service.datasets import DatasetStore
from service.errors import Exhausted, FieldViolation, InvalidRequest
from service.registry import Registry
from service.rpc import conversion, dataset_conversion
from service.rpc.boundary import Context

DEFAULT_PREVIEW_ROWS = 5


class DatasetServicer(pb_grpc.DatasetServiceServicer):
    """See the proto."""

    def __init__(self, *, registry: Registry, store: DatasetStore) -> None:
        self._registry = registry
        self._store = store

    async def UploadDataset(
        self, requests: AsyncIterator[pb.UploadDatasetRequest], context: Context
    ) -> pb.Dataset:
        header = await self._header(requests)
        wish, chunks = inspection.wish_of(header), _chunks(requests)
        if header.validate_only:
            report, kind, preview = await self._store.look_at(wish=wish, chunks=chunks)
            return inspection.looked_at_message(header, report, kind, preview)
        row = await self._store.upload(
            dataset_id=header.dataset_id, display_name=header.display_name, wish=wish, chunks=chunks
        )
        return dataset_conversion.dataset_message(row)

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
            datasets=map(dataset_conversion.dataset_message, page.rows), next_page_token=page.next_cursor
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
