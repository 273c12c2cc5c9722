"""Clients that go away or do not read, and engines that break off: nobody else is held up, and what is not
whole is never an answer."""

import asyncio
import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import pytest

from tests.doubles.engine import WORDS
from tests.service.serving_stage import MODEL
from tests.service.test_gateway import HELLO, Door, opened

CHAT: dict[str, Any] = {"messages": HELLO}
TEXT: dict[str, Any] = {"prompt": "hello world"}
KINDS = [("/v1/chat/completions", CHAT), ("/v1/completions", TEXT)]
LONG_TOKENS, TOKEN_CHARACTERS = 2_000, 20_000
"""An answer of 40 MB, which no buffers of sockets take."""


class Long(Sequence[str]):
    """Tokens of an answer, that know how many of them were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __len__(self) -> int:
        return LONG_TOKENS

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        assert isinstance(index, int)
        self.taken = max(self.taken, index)
        return "x" * TOKEN_CHARACTERS


@contextmanager
def deaf(door: Door, path: str, body: dict[str, Any]) -> Iterator[socket.socket]:
    """A client that asks and never reads."""
    content = json.dumps(body | {"stream": True, "max_tokens": LONG_TOKENS}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", int(door.url.rpartition(":")[2])))
        client.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        yield client


def long_answers(door: Door) -> list[Long]:
    """Have the engine answer those at length who ask for that; gives their answers."""
    given: list[Long] = []

    def respond(fields: Any) -> Sequence[str]:
        if fields["max_tokens"] != LONG_TOKENS:
            return WORDS[:5]
        given.append(Long())
        return given[-1]

    door.on.double.respond = respond
    return given


async def is_free(door: Door) -> None:
    """Within a second neither gateway nor engine gives an answer any more, and all places can be had."""
    async with asyncio.timeout(1):
        await door.on.soon(lambda: not door.on.double.streams and not door.on.served.answers(MODEL.name))
    door.on.double.hold, door.on.double.stalled_completions = None, False
    assert (await door.post({"messages": HELLO, "n": 4}))[0] == 200


@pytest.mark.parametrize("n", [1, 3])
async def test_a_client_that_reads_nothing_holds_up_nobody_and_fills_no_memory(
    tmp_path: Path, n: int
) -> None:
    async with opened(tmp_path) as door:
        given = long_answers(door)
        for path, body in KINDS:
            given.clear()
            with deaf(door, path, body | {"n": n}):
                unchanged, before = 0, [0]
                while unchanged < 10:
                    status, answer = await door.post(CHAT)
                    assert (status, answer["choices"][0]["finish_reason"]) == (200, "stop")
                    taken = [each.taken for each in given]
                    unchanged = unchanged + 1 if taken == before else 0
                    before = taken
                # What the engine could not send yet, nobody holds but the engine.
                assert len(before) == n
                assert sum(before) * TOKEN_CHARACTERS < 16e6 * n < LONG_TOKENS * TOKEN_CHARACTERS * n
                assert door.on.double.streams == n
            await is_free(door)


async def test_a_client_that_reads_nothing_for_too_long_loses_its_answer(tmp_path: Path) -> None:
    async with opened(tmp_path, max_unread_seconds=0.2) as door:
        given = long_answers(door)
        with deaf(door, *KINDS[0]):
            await door.on.soon(lambda: bool(given))
            await door.on.soon(lambda: not door.on.double.streams)
            await is_free(door)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_client_that_goes_away_frees_its_places_within_a_second(
    tmp_path: Path, n: int, stream: bool, has_begun: bool
) -> None:
    async with opened(tmp_path) as door:
        for path, body in KINDS:
            if has_begun:
                door.on.double.hold = asyncio.Event()
            else:
                door.on.double.stalled_completions = True

            async def ask(path: str = path, body: dict[str, Any] = body) -> None:
                url = door.url + path
                async with door.http.post(url, json={**body, "n": n, "stream": stream}) as response:
                    await response.read()

            asking = asyncio.create_task(ask())
            await door.on.soon(lambda: door.on.served.answers(MODEL.name) == n)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

            await is_free(door)


@pytest.mark.parametrize("fault", ["cut", "abort", "endless", "error"])
async def test_an_answer_that_its_engine_does_not_end_is_an_error_and_no_answer(
    tmp_path: Path, fault: str
) -> None:
    async with opened(tmp_path) as door:
        match fault:
            case "cut":
                door.on.double.faults.cut_stream_at = 900
            case "abort":
                door.on.double.faults.finish_reason = "abort"
            case "endless":
                door.on.double.faults.finish_reason = None
            case "error":
                door.on.double.faults.error_event_at = 3
        for path, body in KINDS:
            for n in (1, 3):
                for stream in (False, True):
                    # A streamed answer has begun by then, and its status is sent.
                    door.on.double.hold = held = asyncio.Event()
                    asked = {**body, "n": n, "stream": stream}
                    if not stream:
                        held.set()
                    async with door.http.post(door.url + path, json=asked) as response:
                        held.set()
                        text = await response.text()
                    assert response.status == (200 if stream else 503)
                    if stream:
                        *_, text, rest = text.replace("data: ", "").split("\n\n")
                        assert rest == "" and "[DONE]" not in text
                    error = json.loads(text)["error"]
                    assert error["type"] == "service_unavailable_error"
        await door.on.soon(lambda: not door.on.served.answers(MODEL.name))
