"""AdapterService: shows adapters and versions, and passes on what is asked of them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from hotlora.v1 import adapter_service_pb2 as pb
from hotlora.v1 import adapter_service_pb2_grpc as pb_grpc
from service.datasets import LocalFiles, chunks_of
from service.errors import FieldViolation, InvalidRequest
from service.exporting import Exporter
from service.importing import IDLE_SECONDS, FileName, Importer, stalled
from service.registry import Registry, VersionState
from service.rpc import conversion
from service.rpc.boundary import Context
from service.rpc.following import Following
from trainer.importing import CONFIG_FILE, WEIGHTS_FILE

SETTLED = frozenset({VersionState.ACTIVE, VersionState.FAILED, VersionState.RETIRED})
"""States in which a watch ends: nothing moves on by itself."""


class AdapterServicer(pb_grpc.AdapterServiceServicer):
    """See the proto."""

    def __init__(
        self,
        *,
        registry: Registry,
        following: Following,
        exporter: Exporter,
        importer: Importer,
        local_files: LocalFiles,
    ) -> None:
        self._registry = registry
        self._exporter = exporter
        self._importer = importer
        self._local_files = local_files
        self._following = following

    async def GetAdapter(self, request: pb.GetAdapterRequest, context: Context) -> pb.Adapter:
        return conversion.adapter_message(await self._registry.get_adapter(conversion.id_of(request.name)))

    async def ListAdapters(
        self, request: pb.ListAdaptersRequest, context: Context
    ) -> pb.ListAdaptersResponse:
        page = await self._registry.list_adapters(
            limit=conversion.limit_of(request.page_size), cursor=request.page_token
        )
        return pb.ListAdaptersResponse(
            adapters=map(conversion.adapter_message, page.rows), next_page_token=page.next_cursor
        )

    async def DeleteAdapter(
        self, request: pb.DeleteAdapterRequest, context: Context
    ) -> pb.DeleteAdapterResponse:
        await self._registry.delete_adapter(conversion.id_of(request.name))
        return pb.DeleteAdapterResponse()

    async def GetAdapterVersion(
        self, request: pb.GetAdapterVersionRequest, context: Context
    ) -> pb.AdapterVersion:
        return conversion.version_message(
            await self._registry.get_version(*conversion.version_of(request.name))
        )

    async def ListAdapterVersions(
        self, request: pb.ListAdapterVersionsRequest, context: Context
    ) -> pb.ListAdapterVersionsResponse:
        page = await self._registry.list_versions(
            conversion.id_of(request.parent),
            limit=conversion.limit_of(request.page_size),
            cursor=request.page_token,
        )
        return pb.ListAdapterVersionsResponse(
            adapter_versions=map(conversion.version_message, page.rows), next_page_token=page.next_cursor
        )

    async def LoadAdapterVersion(
        self, request: pb.LoadAdapterVersionRequest, context: Context
    ) -> pb.AdapterVersion:
        return conversion.version_message(
            await self._registry.request_load(*conversion.version_of(request.name))
        )

    async def UnloadAdapterVersion(
        self, request: pb.UnloadAdapterVersionRequest, context: Context
    ) -> pb.AdapterVersion:
        return conversion.version_message(
            await self._registry.request_unload(*conversion.version_of(request.name))
        )

    async def WatchAdapterVersion(
        self, request: pb.WatchAdapterVersionRequest, context: Context
    ) -> AsyncIterator[pb.AdapterVersion]:
        adapter_id, number = conversion.version_of(request.name)
        topic = f"version/{adapter_id}@{number}"
        seen, sent_epoch = self._following.seen(topic), None
        while True:
            version = await self._registry.get_version(adapter_id, number)
            if version.epoch != sent_epoch:
                yield conversion.version_message(version)
                sent_epoch = version.epoch
            if version.state in SETTLED:
                return
            seen = await self._following.changed(topic, seen)

    async def ImportAdapterVersion(
        self, requests: AsyncIterator[pb.ImportAdapterVersionRequest], context: Context
    ) -> pb.AdapterVersion:
        first = await self._first(requests)
        if first is None or not first.HasField("header"):
            raise _misplaced("the first message must be the header")
        header = first.header
        base = await self._importer.base(header.adapter_id, header.base_model)
        pieces = self._local(header.local_path) if header.local_path else _uploaded(requests)
        async with aclosing(pieces):
            return conversion.version_message(await self._importer.take(header.adapter_id, base, pieces))

    async def _first(
        self, requests: AsyncIterator[pb.ImportAdapterVersionRequest]
    ) -> pb.ImportAdapterVersionRequest | None:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                return await anext(requests, None)
        except TimeoutError:
            raise stalled() from None

    async def _local(self, path: str) -> AsyncGenerator[FileName | bytes, None]:
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            with await asyncio.to_thread(self._local_files.open, f"{path}/{name}") as file:
                yield FileName(name)
                async with aclosing(chunks_of(file)) as chunks:
                    async for chunk in chunks:
                        yield chunk

    async def ExportAdapterVersion(
        self, request: pb.ExportAdapterVersionRequest, context: Context
    ) -> AsyncIterator[pb.ExportAdapterVersionResponse]:
        version = await self._registry.get_version(*conversion.version_of(request.name))
        async with aclosing(self._exporter.pieces(version, conversion.wanted_export(request))) as pieces:
            async for piece in pieces:
                yield conversion.export_message(piece)


async def _uploaded(
    requests: AsyncIterator[pb.ImportAdapterVersionRequest],
) -> AsyncGenerator[FileName | bytes, None]:
    async for request in requests:
        match request.WhichOneof("part"):
            case "file":
                yield FileName(request.file.name)
            case "chunk":
                yield request.chunk
            case _:
                raise _misplaced("only the first message may be the header; files follow it")


def _misplaced(rule: str) -> InvalidRequest:
    return InvalidRequest([FieldViolation(field="header", description=rule)])
