"""Our errors as HTTP, in the shape that OpenAI clients expect. The one table for the gateway."""

import json
from dataclasses import dataclass
from math import ceil

from aiohttp import web

from service.errors import (
    AlreadyExists,
    Conflict,
    DataLoss,
    Exhausted,
    HotloraError,
    InvalidRequest,
    NotFound,
    Unavailable,
    WrongState,
)


@dataclass(frozen=True, kw_only=True)
class _Kind:
    status: int
    type: str


_KINDS: dict[type[HotloraError], _Kind] = {
    InvalidRequest: _Kind(status=400, type="invalid_request_error"),
    NotFound: _Kind(status=404, type="invalid_request_error"),
    AlreadyExists: _Kind(status=409, type="invalid_request_error"),
    WrongState: _Kind(status=409, type="invalid_request_error"),
    Conflict: _Kind(status=409, type="invalid_request_error"),
    Exhausted: _Kind(status=429, type="rate_limit_error"),
    Unavailable: _Kind(status=503, type="service_unavailable_error"),
    DataLoss: _Kind(status=500, type="server_error"),
}
_OURS = _Kind(status=500, type="server_error")


def error_body(error: HotloraError) -> str:
    """The error as JSON: `{"error": {"message", "type", "param", "code"}}`."""
    kind = _kind(error)
    param = error.violations[0].field if isinstance(error, InvalidRequest) and error.violations else None
    return _body(error.message, kind.type, param, error.reason.lower())


def error_response(error: HotloraError) -> web.Response:
    """The error as an answer, with Retry-After where waiting helps."""
    headers = {}
    if isinstance(error, Unavailable | Exhausted) and error.retry_seconds is not None:
        headers["Retry-After"] = str(ceil(error.retry_seconds))
    return _response(_kind(error).status, error_body(error), headers)


def plain_error(status: int, message: str, code: str) -> web.Response:
    """An error of HTTP itself: wrong route, method, media type, size."""
    return _response(status, _body(message, "invalid_request_error", None, code), {})


def internal_error(error_id: str) -> web.Response:
    """Our bug: a fixed sentence and an id; the rest is in the log."""
    return _response(_OURS.status, internal_error_body(error_id), {})


def internal_error_body(error_id: str) -> str:
    """`internal_error` as JSON, for the middle of a stream."""
    return _body(f"the service failed; the log says more under {error_id}", _OURS.type, None, "internal")


def _kind(error: HotloraError) -> _Kind:
    return next((_KINDS[kind] for kind in type(error).__mro__ if kind in _KINDS), _OURS)


def _body(message: str, kind: str, param: str | None, code: str) -> str:
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def _response(status: int, body: str, headers: dict[str, str]) -> web.Response:
    return web.Response(status=status, text=body, content_type="application/json", headers=headers)
