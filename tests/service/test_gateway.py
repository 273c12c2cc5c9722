"""The gateway as the `openai` package and a plain HTTP client see it."""

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from service.engine import EngineState
from service.gateway import Gateway
from service.registry import Share, VersionState
from tests.doubles.engine import WORDS
from tests.service.own_engines_stage import own_stage, publish_whole
from tests.service.serving_stage import MODEL, Stage, register, stage, write_artifact, write_prompt
from tests.tiny_renderer import CHATML
from trainer.config import Technique

HELLO: Any = [{"role": "user", "content": "hello world"}]
TEXT = "".join(WORDS[:5])


@dataclass(frozen=True, kw_only=True)
class Door:
    """A gateway at work, with clients for it."""

    on: Stage
    url: str
    ai: openai.AsyncOpenAI
    http: aiohttp.ClientSession

    async def post(self, body: Any, **more: Any) -> tuple[int, Any]:
        """Status and JSON of a chat request."""
        async with self.http.post(f"{self.url}/v1/chat/completions", json=body, **more) as response:
            return response.status, await response.json()


@asynccontextmanager
async def opened(
    tmp_path: Path, *, template: str | None = None, max_unread_seconds: float = 60.0
) -> AsyncIterator[Door]:
    """A stage with a gateway before it."""
    async with stage(tmp_path, template=template) as on, _door(on, max_unread_seconds) as door:
        yield door


@asynccontextmanager
async def _door(on: Stage, max_unread_seconds: float = 60.0) -> AsyncIterator[Door]:
    gateway = Gateway(
        chat=on.chat,
        bases=on.bases,
        registry=on.registry,
        metrics=on.metrics,
        address="127.0.0.1:0",
        max_unread_seconds=max_unread_seconds,
    )
    task = asyncio.create_task(gateway.run())
    url = f"http://127.0.0.1:{await gateway.port()}"
    ai = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    try:
        async with aiohttp.ClientSession() as http:
            yield Door(on=on, url=url, ai=ai, http=http)
    finally:
        await ai.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_openai_package_gets_a_whole_answer(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        answer = await door.ai.chat.completions.create(model=MODEL.name, messages=HELLO)

        assert answer.choices[0].message.content == TEXT
        assert answer.choices[0].message.role == "assistant"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.model == MODEL.name
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 5
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + 5


async def test_the_openai_package_gets_a_streamed_answer_with_its_usage_last(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        stream = await door.ai.chat.completions.create(
            model="", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]

        *body, usage = chunks
        assert "".join(chunk.choices[0].delta.content or "" for chunk in body) == TEXT
        assert body[0].choices[0].delta.role == "assistant"
        assert [chunk.choices[0].finish_reason for chunk in body][-1] == "stop"
        assert all(chunk.usage is None for chunk in body)
        assert usage.choices == []
        assert usage.usage is not None and usage.usage.completion_tokens == 5
        assert len({chunk.id for chunk in chunks}) == 1


async def test_adapters_answer_by_name_and_are_listed_with_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        await door.on.outcome(await door.on.publish("support", b"one"))
        await door.on.outcome(await door.on.publish("support", b"two"))
        answer = await door.ai.chat.completions.create(model="support", messages=HELLO)

        assert answer.model == "support@2"
        listed = [model.id async for model in door.ai.models.list()]
        assert listed == [MODEL.name, "support", "support@2", "support@1"]
        assert (await door.ai.models.retrieve("support@1")).id == "support@1"


async def test_aliases_are_listed_and_asked_and_every_answer_names_the_version_that_gave_it(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as door:
        for weights in (b"one", b"two"):
            await door.on.outcome(await door.on.publish("support", weights))
        for alias, shares in (
            ("default", [Share(version=1, percent=60), Share(version=2, percent=40)]),
            ("prod", [Share(version=2, percent=100)]),
        ):
            await door.on.point("support", alias, *shares)
        cards = {card.id: card.root async for card in door.ai.models.list()}  # type: ignore[attr-defined]
        assert cards == {
            MODEL.name: MODEL.name,
            "support": "support@1",
            "support@prod": "support@2",
            "support@2": "support@2",
            "support@1": "support@1",
        }
        answered = {}
        for number in range(12):
            for field in ("user", "safety_identifier"):
                for stream in (False, True):
                    body = {"model": "support", "messages": HELLO, "stream": stream, field: f"u{number}"}
                    url = f"{door.url}/v1/chat/completions"
                    async with door.http.post(url, json=body) as response:
                        model = response.headers["Hotlora-Model"]
                        assert f'"model": "{model}"' in (await response.text()).replace('":"', '": "')
                        assert answered.setdefault(number, model) == model
        assert set(answered.values()) == {"support@1", "support@2"}
        _, refused = await door.post({"model": "support", "messages": HELLO, "user": "u" * 257})
        assert refused["error"]["param"] == "user"


async def test_prompt_tuned_and_whole_models_are_listed_and_answer_like_adapters(tmp_path: Path) -> None:
    async with own_stage(tmp_path) as (on, _), _door(on) as door:
        prompt = write_prompt(on.artifacts_dir, 1)
        tuned = await register(
            on.registry, prompt, adapter_id="tuned", rank=0, technique=Technique.PROMPT_TUNING
        )
        whole = await publish_whole(on, "whole", b"weights of a whole model")
        for row in (tuned, whole):
            assert (await on.outcome(row)).state == VersionState.ACTIVE

        listed = [model.id async for model in door.ai.models.list()]
        assert listed == [MODEL.name, "tuned", "tuned@1", "whole", "whole@1"]
        for name in ("tuned", "whole"):
            answer = await door.ai.chat.completions.create(model=name, messages=HELLO)
            assert (answer.model, answer.choices[0].message.content) == (f"{name}@1", TEXT)
            stream = await door.ai.chat.completions.create(model=f"{name}@1", messages=HELLO, stream=True)
            chunks = [chunk async for chunk in stream]
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
            assert {chunk.model for chunk in chunks} == {f"{name}@1"}


async def test_an_adapter_that_was_trained_on_another_template_never_answers(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        await door.on.outcome(await door.on.publish("support", b"one"))
        other = write_artifact(door.on.artifacts_dir, b"two", template=CHATML)
        row = await door.on.outcome(await register(door.on.registry, other))
        assert (row.model, row.failure_reason) == ("support@2", "WRONG_RENDERING")
        assert row.failure_message is not None and "template_sha256" in row.failure_message
        assert "support@2" not in [model.id async for model in door.ai.models.list()]
        with pytest.raises(openai.ConflictError, match="FAILED"):
            await door.ai.chat.completions.create(model="support@2", messages=HELLO)
        answer = await door.ai.chat.completions.create(model="support", messages=HELLO)
        assert answer.model == "support@1"
        assert door.on.double.calls["/v1/load_lora_adapter"] == 1


async def test_an_adapter_goes_out_of_service_when_its_base_gets_another_template(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        row = await on.outcome(await on.publish("support", b"one"))
    async with stage(tmp_path, template=CHATML) as on, _door(on) as door:
        assert (await on.outcome(row, {VersionState.FAILED})).failure_reason == "WRONG_RENDERING"
        with pytest.raises(openai.APIStatusError):
            await door.ai.chat.completions.create(model="support", messages=HELLO)
        assert (await door.ai.chat.completions.create(model="", messages=HELLO)).model == MODEL.name


async def test_content_may_be_a_list_of_text_parts(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        parts = [{"type": "text", "text": "hello "}, {"type": "text", "text": "world"}]
        whole = await door.ai.chat.completions.create(model="", messages=HELLO)
        messages: Any = [{"role": "user", "content": parts}]
        split = await door.ai.chat.completions.create(model="", messages=messages)

        assert whole.usage == split.usage


async def test_errors_are_those_that_the_openai_package_knows(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        create = door.ai.chat.completions.create
        with pytest.raises(openai.NotFoundError) as missing:
            await create(model="nobody", messages=HELLO)
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as bad:
            await create(model="", messages=HELLO, temperature=3)
        assert bad.value.param == "temperature"
        door.on.engine.state = EngineState.DOWN
        with pytest.raises(openai.InternalServerError) as down:
            await create(model="", messages=HELLO)
        assert down.value.status_code == 503
        assert int(down.value.response.headers["Retry-After"]) >= 1
        door.on.engine.state = EngineState.READY


async def test_a_stream_that_breaks_off_ends_with_an_error_and_without_done(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        door.on.double.faults.error_event_at = 2
        door.on.double.hold = asyncio.Event()
        stream = await door.ai.chat.completions.create(model="", messages=HELLO, stream=True)
        door.on.double.hold.set()
        with pytest.raises(openai.APIError, match="failed while answering"):
            async for _ in stream:
                pass


async def test_calls_are_counted_by_route_and_status(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        await door.ai.chat.completions.create(model="", messages=HELLO)
        with pytest.raises(openai.BadRequestError):
            await door.ai.chat.completions.create(model="", messages=HELLO, extra_body={"documents": []})
        for path in ("/v1/models/nobody", "/v1/models/nobody@1", "/nowhere"):
            await (await door.http.get(door.url + path)).read()

        told = await (await door.http.get(f"{door.url}/metrics")).text()

    counts = re.findall(r'hotlora_calls_total{door="http",method="(.*?)",status="(.*?)"} (\d+)', told)
    assert sorted(counts) == [
        ("", "404", "1"),
        ("GET /v1/models/{model}", "404", "2"),
        ("POST /v1/chat/completions", "200", "1"),
        ("POST /v1/chat/completions", "400", "1"),
    ]


async def test_a_client_that_goes_away_takes_its_answer_with_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        door.on.double.hold = asyncio.Event()
        stream = await door.ai.chat.completions.create(model="", messages=HELLO, stream=True)
        assert door.on.double.streams == 1

        await stream.close()

        async with asyncio.timeout(1):
            await door.on.double.stream_ended.wait()
        assert door.on.served.answers(MODEL.name) == 0


async def test_how_an_answer_is_to_be_drawn_arrives_at_the_engine(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        asked: list[Mapping[str, object]] = []

        def respond(fields: Mapping[str, object]) -> tuple[str, ...]:
            asked.append(fields)
            return WORDS[:5]

        door.on.double.respond = respond
        settings: Any = {"temperature": 0.5, "top_p": 0.25, "seed": 7, "stop": ["\n\n", "User:"]}
        create = door.ai.chat.completions.create
        await create(model="", messages=HELLO, max_completion_tokens=3, **settings)
        await create(model="", messages=HELLO, max_tokens=3, **settings)
        await door.ai.completions.create(model="", prompt="hello", max_tokens=3, **settings)
    wanted = settings | {"max_tokens": 3, "stream": True}
    assert [{name: fields[name] for name in wanted} for fields in asked] == [wanted] * 3


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "messages[0]",
        ),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": []}]}, "messages[0].tool_calls"),
        ({"messages": [7]}, "messages[0]"),
        ({"messages": [*HELLO, *HELLO]}, "messages[1].role"),
        ({"model": 7}, "model"),
        ({"model": "\ud800"}, "model"),
        ({"user": "\ud800"}, "user"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": 10**9}, "max_completion_tokens"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"stop": ["", "x"]}, "stop"),
        ({"stop": ["x"] * 5}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"stream_options": []}, "stream_options"),
        ({"n": 9}, "n"),
        ({"n": 0}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "text", "grammar": "x"}}, "response_format.grammar"),
        ({"response_format": "json"}, "response_format"),
        ({"prompt_embeds": "AAAA"}, "prompt_embeds"),
        ({"chat_template": "{{ x }}"}, "chat_template"),
    ],
)
async def test_a_wrong_field_is_refused_by_its_name(
    tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    async with opened(tmp_path) as door:
        status, body = await door.post({"model": "", "messages": HELLO, **change})

        assert status == 400
        assert body["error"]["param"] == field
        assert body["error"]["type"] == "invalid_request_error"
        assert door.on.double.streams == 0


async def test_fields_without_meaning_for_the_answer_and_nulls_are_accepted(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        body = {"model": None, "messages": HELLO, "user": "me", "n": 1, "tools": None, "frequency_penalty": 0}
        unused = {"metadata": {"a": "b"}, "store": False, "prompt_cache_key": "k"}
        status, answer = await door.post({**body, **unused, "response_format": {"type": "text"}})

        assert (status, answer["choices"][0]["message"]["content"]) == (200, TEXT)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"messages": ' + b"[" * 100_000]
)
async def test_a_body_that_is_no_json_object_is_refused(tmp_path: Path, body: bytes) -> None:
    async with opened(tmp_path) as door:
        headers = {"Content-Type": "application/json"}
        async with door.http.post(f"{door.url}/v1/chat/completions", data=body, headers=headers) as response:
            assert response.status == 400
            assert (await response.json())["error"]["param"] == "body"


async def test_a_body_beyond_the_bound_is_refused_and_the_gateway_lives_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        headers = {"Content-Type": "application/json"}
        body = io.BytesIO(json.dumps({"messages": "x" * (9 << 20)}).encode())
        async with door.http.post(f"{door.url}/v1/chat/completions", data=body, headers=headers) as response:
            assert response.status == 413
            assert (await response.json())["error"]["code"] == "too_large"
        assert (await door.post({"messages": HELLO}))[0] == 200


async def test_what_a_browser_page_of_a_stranger_could_send_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        plain = {"Content-Type": "text/plain"}
        async with door.http.post(
            f"{door.url}/v1/chat/completions", data=json.dumps({"messages": HELLO}), headers=plain
        ) as response:
            assert response.status == 415
        async with door.http.get(f"{door.url}/v1/models", headers={"Host": "evil.example:8080"}) as response:
            assert response.status == 403


async def test_unknown_routes_and_methods_answer_in_json(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        for path, status in (
            ("/v1/embeddings", 404),
            ("/v1/chat/completions", 405),
            ("/v1/models/nobody", 404),
        ):
            async with door.http.get(door.url + path) as response:
                assert response.status == status
                assert (await response.json())["error"]["message"]


async def test_health_says_whether_answers_can_be_given(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        for state, status in ((EngineState.READY, 200), (EngineState.STARTING, 503)):
            door.on.engine.state = state
            async with door.http.get(f"{door.url}/healthz") as response:
                assert response.status == status
                assert (await response.json())["engine"] == state
        door.on.engine.state = EngineState.READY
