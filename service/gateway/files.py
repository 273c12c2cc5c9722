"""/v1/files of the OpenAI API: a file is a dataset, under the dataset's id.

Bytes go from the connection into the dataset store as they come; what a row must look like is the store's.
"""

from collections.abc import AsyncIterator

from aiohttp import BodyPartReader, MultipartReader, web

from service.datasets import DatasetStore
from service.errors import FieldViolation, InvalidRequest
from service.gateway.errors import plain_error
from service.gateway.paging import Paging
from service.registry import DatasetRow, Registry
from trainer.inspection import Wish

PURPOSE = "fine-tune"
_CHUNK_BYTES = 1 << 18
_FIELD_BYTES = 256
"""At least what a boundary has, which a chunk must hold."""
_MAX_NAME_CHARACTERS = 200
_MALFORMED = (ValueError, KeyError)
"""What aiohttp raises at a boundary that is missing or too long, and at a body that does not end with it."""
_NO_MULTIPART = "is no multipart/form-data: its parts are not between the boundary that the header names"


class Files:
    """See the module."""

    def __init__(self, *, datasets: DatasetStore, registry: Registry) -> None:
        self._datasets = datasets
        self._registry = registry

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the routes."""
        router.add_post("/v1/files", self._create)
        router.add_get("/v1/files", self._list)
        router.add_get("/v1/files/{id}", self._get)
        router.add_get("/v1/files/{id}/content", self._content)
        router.add_delete("/v1/files/{id}", self._delete)

    async def _create(self, request: web.Request) -> web.Response:
        if request.content_type != "multipart/form-data":
            return plain_error(415, "send multipart/form-data", "wrong_media_type")
        purpose = ""
        async for part in _parts(request):
            if not isinstance(part, BodyPartReader) or part.name not in ("purpose", "file"):
                name = getattr(part, "name", None) or "a nested part"
                raise _wrong(name[:64], "is not supported; send purpose, then file")
            if part.name == "purpose":
                purpose = (await anext(_chunks(part, _FIELD_BYTES), b"")).decode(errors="replace")
                continue
            if purpose != PURPOSE:
                raise _wrong("purpose", f"must be {PURPOSE!r} and come before file, got {purpose[:40]!r}")
            row = await self._datasets.upload(
                dataset_id="", display_name=_name(part.filename), wish=Wish(), chunks=_chunks(part)
            )
            return web.json_response(file_object(row))
        raise _wrong("file", "is missing")

    async def _list(self, request: web.Request) -> web.Response:
        paging = Paging.of(request, most=1_000, default=1_000, others=("purpose", "order"))
        if request.query.get("order", "desc") != "desc":
            raise _wrong("order", "must be desc: files are listed newest first")
        if request.query.get("purpose", PURPOSE) != PURPOSE:
            return web.json_response({"object": "list", "data": [], "has_more": False})
        return await paging.answer(self._registry.list_datasets, lambda row: row.id, file_object)

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(file_object(await self._registry.get_dataset(request.match_info["id"])))

    async def _content(self, request: web.Request) -> web.StreamResponse:
        row = await self._registry.get_dataset(request.match_info["id"])
        return web.FileResponse(
            self._datasets.path(row.id), headers={"Content-Type": "application/jsonl; charset=utf-8"}
        )

    async def _delete(self, request: web.Request) -> web.Response:
        file_id = request.match_info["id"]
        await self._registry.get_dataset(file_id)
        await self._datasets.delete(file_id)
        return web.json_response({"id": file_id, "object": "file", "deleted": True})


def file_object(row: DatasetRow) -> dict[str, object]:
    """A dataset as a file."""
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.size_bytes,
        "created_at": int(row.create_time),
        "filename": row.display_name or row.id,
        "purpose": PURPOSE,
        "status": "processed",
    }


async def _parts(request: web.Request) -> AsyncIterator[MultipartReader | BodyPartReader]:
    """Raises InvalidRequest where the body is not what its header says."""
    try:
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            yield part
    except _MALFORMED as error:
        raise _wrong("body", _NO_MULTIPART) from error


async def _chunks(part: BodyPartReader, size: int = _CHUNK_BYTES) -> AsyncIterator[bytes]:
    """Raises InvalidRequest as above."""
    try:
        while chunk := await part.read_chunk(size):
            yield chunk
    except _MALFORMED as error:
        raise _wrong("body", _NO_MULTIPART) from error


def _name(filename: str | None) -> str:
    """The last part of what a caller calls a file, for people to read."""
    last = (filename or "").replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in last if character.isprintable())[:_MAX_NAME_CHARACTERS]


def _wrong(field: str, description: str) -> InvalidRequest:
    return InvalidRequest([FieldViolation(field=field, description=description)])
