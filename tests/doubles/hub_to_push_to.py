"""The Hugging Face hub, as far as pushing a model goes: repositories, git-lfs and commits, over HTTP."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_writes"
REFUSED = "refused"
"""Owner of repositories that the token may not write."""


@dataclass(kw_only=True)
class Hub:
    """What was pushed."""

    url: str
    private: dict[str, bool] = field(default_factory=dict)
    """Repositories."""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    """Their messages."""
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files by their SHA-256."""
    away: bool = False


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub that listens on loopback until the block ends."""

    class Handler(_Handler):
        def answer(self, method: str) -> tuple[int, Any]:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return _answer(double, method, self.path, self.headers.get("Authorization"), body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    double = Hub(url=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def answer(self, method: str) -> tuple[int, Any]:
        raise NotImplementedError

    def _do(self, method: str) -> None:
        status, fields = self.answer(method)
        content = json.dumps(fields).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self._do("POST")

    def do_PUT(self) -> None:
        self._do("PUT")

    def do_GET(self) -> None:
        self._do("GET")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _answer(hub: Hub, method: str, path: str, authorization: str | None, body: bytes) -> tuple[int, Any]:
    path = path.partition("?")[0]
    if hub.away:
        return 503, {"error": "come back later"}
    if method == "PUT":  # by its place alone, as to a store of objects
        hub.stored[path.rpartition("/")[2]] = body
        return 200, {}
    if authorization != f"Bearer {TOKEN}":
        return 401, {"error": "Invalid username or password."}
    match [method, *path.strip("/").split("/")]:
        case ["POST", "api", "repos", "create"]:
            return _create(hub, json.loads(body))
        case ["POST", "api", "validate-yaml"]:
            return 200, {"errors": [], "warnings": []}
        case ["POST", "api", "models", _, _, "preupload", _]:
            modes = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for each in json.loads(body)["files"]
            ]
            return 200, {"files": modes}
        case ["POST", _, _, "info", "lfs", "objects", "batch"]:
            places = [
                {**each, "actions": {"upload": {"href": f"{hub.url}/store/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": places}
        case ["POST", "api", "models", owner, name, "commit", _]:
            return _commit(hub, f"{owner}/{name}", body)
    return 404, {"error": f"{method} {path} is not a part of this double"}


def _create(hub: Hub, fields: dict[str, Any]) -> tuple[int, Any]:
    repository = f"{fields['organization']}/{fields['name']}"
    if fields["organization"] == REFUSED:
        return 403, {"error": "You don't have the rights to create a model under this namespace"}
    url = {"url": f"{hub.url}/{repository}"}
    if repository in hub.private:
        return 409, {"error": "You already created this model repo", **url}
    hub.private[repository] = (
        fields["visibility"] == "private" if "visibility" in fields else fields["private"]
    )
    return 200, url


def _commit(hub: Hub, repository: str, body: bytes) -> tuple[int, Any]:
    files = hub.files.setdefault(repository, {})
    for line in map(json.loads, body.splitlines()):
        value = line["value"]
        match line["key"]:
            case "header":
                hub.commits.append(value["summary"])
            case "file":
                files[value["path"]] = base64.b64decode(value["content"])
            case "lfsFile":
                content = hub.stored[value["oid"]]
                assert sha256(content).hexdigest() == value["oid"]
                files[value["path"]] = content
    oid = f"{len(hub.commits):040x}"
    return 200, {"commitUrl": f"{hub.url}/{repository}/commit/{oid}", "commitOid": oid}
