"""Uploads that break off, because somebody closed the page: what came of them goes at once.

Gradio deletes what it received of an upload that it refuses, but keeps for good what it received of one that
breaks off. So the rest of such an upload is made up here, in a way that it refuses.
"""

from email.message import Message as Header

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BrokenUploads:
    """Stands before Gradio."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith("/upload"):
            await self._app(scope, receive, send)
            return
        end = _refused_end(scope)

        async def whole() -> Message:
            message = await receive()
            return end if message["type"] == "http.disconnect" else message

        await self._app(scope, whole, send)


def _refused_end(scope: Scope) -> Message:
    """The last piece of an upload, whose last part has a header without a name."""
    header = Header()
    header["content-type"] = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1")
    boundary = str(header.get_param("boundary", "")).encode("latin-1")
    return {"type": "http.request", "body": b"\r\n--" + boundary + b"\r\n:", "more_body": False}
