"""Files that are refused at every door, and the line that is blamed."""

from tests.stage.trained import GOOD_ROW

_ROLES = b'{"messages": [{"role": "assistant", "content": "hi"}, {"role": "robot", "content": "hello"}]}\n'

BAD_FILES: dict[str, tuple[bytes, str]] = {
    "a malformed line": (GOOD_ROW + b"{oops\n", "line 2"),
    "an empty file": (b"", "line 1"),
    "a binary": (b"\x7fELF" + bytes(64), "line 1"),
    "wrong roles": (GOOD_ROW + _ROLES, "line 2"),
    "not UTF-8": (GOOD_ROW + b'{"prompt": "\xe9"}\n', "line 2"),
    "100,000 deep": (b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "line 1"),
}
