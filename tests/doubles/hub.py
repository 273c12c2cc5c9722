"""A Hugging Face hub with one repository, as far as `datasets` and `huggingface_hub` ask."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

from aiohttp import web

REPOSITORY = "shop/talks"
COMMIT = "0123456789abcdef" * 2 + "01234567"


@asynccontextmanager
async def hub(
    files: Mapping[str, bytes], *, kind: Literal["datasets", "models"] = "datasets"
) -> AsyncIterator[str]:
    """Its address, while it has these files; none of them lies in a folder."""

    def entry(path: str) -> dict[str, object]:
        return {"type": "file", "oid": "a" * 40, "size": len(files[path]), "path": path}

    async def described(request: web.Request) -> web.Response:
        siblings = [{"rfilename": path} for path in files]
        return web.json_response({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings})

    async def listed(request: web.Request) -> web.Response:
        is_root = "folder" not in request.match_info
        return web.json_response([entry(path) for path in files if is_root])

    async def known(request: web.Request) -> web.Response:
        paths = (await request.post()).getall("paths")
        return web.json_response([entry(path) for path in paths if path in files])

    async def sent(request: web.Request) -> web.Response:
        content = files.get(request.match_info["path"])
        headers = {"X-Repo-Commit": COMMIT}
        if content is None:
            return web.Response(status=404, headers={**headers, "X-Error-Code": "EntryNotFound"})
        headers["ETag"] = f'"{len(content)}"'
        if request.http_range.start is None:
            return web.Response(body=content, headers=headers)
        part, begin = content[request.http_range], request.http_range.start
        headers["Content-Range"] = f"bytes {begin}-{begin + len(part) - 1}/{len(content)}"
        return web.Response(status=206, body=part, headers=headers)

    async def missing(request: web.Request) -> web.Response:
        return web.Response(status=404, headers={"X-Error-Code": "RepoNotFound"})

    app = web.Application()
    api = f"/api/{kind}/{REPOSITORY}"
    folder = "/datasets" if kind == "datasets" else ""
    app.router.add_get(f"{api}/revision/{{commit}}", described)
    app.router.add_get(f"{api}/tree/{{commit}}", listed)
    app.router.add_get(f"{api}/tree/{{commit}}/{{folder:.+}}", listed)
    app.router.add_post(f"{api}/paths-info/{{commit}}", known)
    app.router.add_get(f"{folder}/{REPOSITORY}/resolve/{{commit}}/{{path:.+}}", sent)
    app.router.add_route("*", "/{path:.*}", missing)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
