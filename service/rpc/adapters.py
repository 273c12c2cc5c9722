"""AdapterService: shows adapters and versions, and passes on what is asked of them."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from hotlora.v1 import adapter_service_pb2 as pb
from hotlora.v1 import adapter_service_pb2_grpc as pb_grpc
from service.exporting import Exporter
from service.registry import Registry, VersionState
from service.rpc import conversion
from service.rpc.boundary import Context
from service.rpc.following import Following

SETTLED = frozenset({VersionState.ACTIVE, VersionState.FAILED, VersionState.RETIRED})
"""States in which a watch ends: nothing moves on by itself."""


class AdapterServicer(pb_grpc.AdapterServiceServicer):
    """See the proto."""

    def __init__(self, *, registry: Registry, following: Following, exporter: Exporter) -> None:
        self._registry = registry
        self._exporter = exporter
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

    async def ExportAdapterVersion(
        self, request: pb.ExportAdapterVersionRequest, context: Context
    ) -> AsyncIterator[pb.ExportAdapterVersionResponse]:
        version = await self._registry.get_version(*conversion.version_of(request.name))
        async with aclosing(self._exporter.pieces(version)) as pieces:
            async for piece in pieces:
                yield conversion.export_message(piece)
