"""Page cursors: opaque to callers, and good only for the list that gave them out."""

import base64
import binascii
import hashlib
import json

from service.errors import FieldViolation, InvalidRequest

Key = int | str
"""Sort key of the last row that was given out."""


def encode(scope: str, key: Key) -> str:
    """A cursor after `key` in the list that `scope` (its name and filters) describes."""
    text = json.dumps([_fingerprint(scope), key])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_number(scope: str, cursor: str) -> int | None:
    """The integer key in `cursor`; None for an empty one, the first page. Raises InvalidRequest."""
    key = _decode(scope, cursor)
    if key is not None and (not isinstance(key, int) or isinstance(key, bool) or not 0 <= key < 1 << 63):
        raise _refused()
    return key


def decode_text(scope: str, cursor: str) -> str | None:
    """The text key in `cursor`; None for an empty one, the first page. Raises InvalidRequest."""
    key = _decode(scope, cursor)
    if key is not None and not isinstance(key, str):
        raise _refused()
    return key


def _decode(scope: str, cursor: str) -> object:
    if not cursor:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        parts = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (UnicodeError, binascii.Error, json.JSONDecodeError, RecursionError):
        raise _refused() from None
    if not isinstance(parts, list) or len(parts) != 2 or parts[0] != _fingerprint(scope) or parts[1] is None:
        raise _refused()
    key: object = parts[1]
    return key


def _fingerprint(scope: str) -> str:
    return hashlib.sha256(scope.encode()).hexdigest()[:12]


def _refused() -> InvalidRequest:
    return InvalidRequest(
        [
            FieldViolation(
                field="page_token",
                description="not a token of this list with these filters; pass next_page_token of the page "
                "before, or nothing for the first page",
            )
        ]
    )
