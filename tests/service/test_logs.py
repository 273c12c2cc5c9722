"""What the service says on standard error: JSON lines that name the call, the job and the version."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from hotlora.v1 import alias_service_pb2 as aliases_pb
from hotlora.v1 import chat_service_pb2 as pb
from hotlora.v1 import resources_pb2
from service import logs
from service.gateway import Gateway
from tests.contract.stage import running
from tests.contract.test_adapters import a_version, proven
from tests.service.serving_stage import stage

ASKED = {"messages": [{"role": "user", "content": "hello world"}], "model": "support"}
NOT_KEPT = ["", "two words", "é", "a" * 65, "{evil}"]


@pytest.fixture
def said(tmp_path: Path) -> Iterator[Path]:
    """Where everything is written that is said meanwhile."""
    path = tmp_path / "said.jsonl"
    with path.open("w") as stream:
        logs.configure(stream)
        yield path
        structlog.reset_defaults()


def answers(said: Path) -> list[dict[str, Any]]:
    """The lines about answers."""
    lines = map(json.loads, said.read_text().splitlines())
    return [line for line in lines if line["event"] == "answer"]


async def test_an_answer_over_http_is_logged_with_its_version_and_the_callers_id(
    tmp_path: Path, said: Path
) -> None:
    async with stage(tmp_path) as on, aiohttp.ClientSession() as http:
        await on.outcome(await on.publish("support", b"one"))
        gateway = Gateway(
            chat=on.chat, bases=on.bases, registry=on.registry, metrics=on.metrics, address="127.0.0.1:0"
        )
        task = asyncio.create_task(gateway.run())
        url = f"http://127.0.0.1:{await gateway.port()}/v1"
        ids = []
        for path, body, given in (
            ("/chat/completions", ASKED, "mine-1"),
            ("/chat/completions", {**ASKED, "stream": True}, "two words"),
            ("/nowhere", ASKED, "mine-3"),
        ):
            async with http.post(url + path, json=body, headers={"X-Request-Id": given}) as response:
                await response.read()
                ids.append(response.headers["X-Request-Id"])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert ids[0] == "mine-1" and ids[2] == "mine-3"
    assert ids[1] not in {"two words", ids[0]}
    logged = answers(said)
    assert [(line["request"], line["model"], line["outcome"]) for line in logged] == [
        ("mine-1", "support@1", "ok"),
        (ids[1], "support@1", "ok"),
    ]
    assert {line["completion_tokens"] for line in logged} == {5}
    assert all(line["first_token_seconds"] > 0 for line in logged)


async def test_a_call_over_grpc_is_logged_with_the_callers_id_and_hears_it(
    tmp_path: Path, said: Path
) -> None:
    hello = resources_pb2.Message(role="user", content="hello")
    async with running(tmp_path) as on:
        call = on.chat.Chat(pb.ChatRequest(messages=[hello]), metadata=((logs.REQUEST_ID, "mine-2"),))
        assert [response async for response in call]
        assert dict(await call.initial_metadata())[logs.REQUEST_ID] == "mine-2"
    (answer,) = answers(said)
    assert answer["request"] == "mine-2"
    assert answer["outcome"] == "ok"


async def test_jobs_and_aliases_are_followed_to_the_calls_that_changed_them(
    tmp_path: Path, said: Path
) -> None:
    prod = "adapters/support/aliases/prod"
    async with running(tmp_path) as on:
        await proven(on, await a_version(on))
        await on.aliases.PromoteVersion(
            aliases_pb.PromoteVersionRequest(name=prod, version=1), metadata=((logs.REQUEST_ID, "mine-4"),)
        )
        await on.aliases.DeleteAlias(
            aliases_pb.DeleteAliasRequest(name=prod), metadata=((logs.REQUEST_ID, "mine-5"),)
        )
        (job,) = (await on.registry.list_jobs()).rows
    lines = {line["event"]: line for line in map(json.loads, said.read_text().splitlines())}
    created, points, deleted = (lines[each] for each in ("job created", "alias points", "alias deleted"))
    assert created["job"] == job.id and created["request"]
    assert (points["request"], points["model"], points["shares"]) == (
        *("mine-4", "support@prod"),
        {"support@1": 100},
    )
    assert (deleted["request"], deleted["model"]) == ("mine-5", "support@prod")


@pytest.mark.parametrize("given", [None, *NOT_KEPT])
def test_an_id_that_could_hold_anything_is_replaced(given: str | None) -> None:
    first, second = logs.request_id(given), logs.request_id(given)
    assert len({first, second, given}) == 3


def test_libraries_are_heard_in_the_same_form() -> None:
    program = (
        "import logging, sys; from service import logs; logs.configure(sys.stderr);"
        "logging.getLogger('somebody').warning('no %s left', 'room');"
        "logging.getLogger('somebody').info('chatter')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    (line,) = map(json.loads, ended.stderr.splitlines())
    assert (line["event"], line["level"], line["logger"]) == ("no room left", "warning", "somebody")
