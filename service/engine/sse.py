"""Server-sent events, the strict subset that vLLM writes: `data:` lines, comments, blank lines.

Bounded: a line longer than `MAX_LINE_BYTES` is a fault of the sender. Knows nothing of what the events mean.
"""

MAX_LINE_BYTES = 1 << 20
"""One token with its counts is some 300 bytes; a megabyte without a line end is not an answer."""


class SseError(ValueError):
    """The sender does not speak server-sent events as vLLM does."""


class SseParser:
    """Cuts a byte stream into the payloads of its `data:` lines; one payload a line, as vLLM writes them."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """Payloads completed by `piece`. Raises SseError on other fields and on lines without end."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise SseError(f"a line of more than {MAX_LINE_BYTES} bytes")
        payloads: list[bytes] = []
        for line in lines:
            content = line.removesuffix(b"\r")
            if not content or content.startswith(b":"):
                continue
            if not content.startswith(b"data:"):
                raise SseError(f"not a data line: {content[:80]!r}")
            if len(content) > MAX_LINE_BYTES:
                raise SseError(f"a line of more than {MAX_LINE_BYTES} bytes")
            payloads.append(content[5:].removeprefix(b" "))
        return payloads

    @property
    def rest(self) -> bytes:
        """Bytes of a line that has not ended."""
        return self._rest
