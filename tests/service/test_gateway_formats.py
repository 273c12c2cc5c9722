"""Several answers, log-probabilities and prescribed forms, as the `openai` package asks for them."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.doubles.engine import WORDS
from tests.service.serving_stage import MODEL
from tests.service.test_gateway import HELLO, TEXT, opened

SCHEMA = {
    "type": "object",
    "properties": {"item": {"$ref": "#/$defs/item"}, "pattern": {"type": "string", "maxLength": 20}},
    "required": ["item"],
    "additionalProperties": False,
    "$defs": {"item": {"enum": ["a", "b"]}},
}


def wrapped(schema: object) -> dict[str, Any]:
    """`response_format` with this schema."""
    return {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}


async def test_several_answers_come_at_once_whole_and_streamed(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        asked: list[Mapping[str, object]] = []

        def respond(fields: Mapping[str, object]) -> list[str]:
            asked.append(fields)
            return ["seed ", str(fields["seed"])]

        door.on.double.respond = respond
        create = door.ai.chat.completions.create
        whole = await create(model="", messages=HELLO, n=3, seed=2**31 - 2)
        texts: dict[int, str] = {}
        roles: list[int] = []
        usage = None
        async for chunk in await create(
            model="", messages=HELLO, n=3, seed=7, stream=True, stream_options={"include_usage": True}
        ):
            usage = chunk.usage
            for choice in chunk.choices:
                texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
                roles += [choice.index] if choice.delta.role else []
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert [choice.message.content for choice in whole.choices] == [
        f"seed {2**31 - 2}",
        f"seed {2**31 - 1}",
        "seed 0",
    ]
    assert whole.usage is not None and usage is not None
    assert whole.usage.completion_tokens == usage.completion_tokens == 6
    assert whole.usage.prompt_tokens == usage.prompt_tokens < 20
    assert texts == {0: "seed 7", 1: "seed 8", 2: "seed 9"}
    assert sorted(roles) == [0, 1, 2]


async def test_several_answers_begin_before_any_of_them_says_something(tmp_path: Path) -> None:
    """The version may be retired while the first one is thought about; what has begun ends on it."""
    async with opened(tmp_path) as door:
        door.on.double.stalled_completions = True
        began = door.on.double.calls["/v1/completions"]
        asked = asyncio.create_task(door.ai.chat.completions.create(model="", messages=HELLO, n=3))
        await door.on.soon(lambda: door.on.double.calls["/v1/completions"] == began + 3)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


async def test_several_answers_fail_together_and_go_with_their_client(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        door.on.double.faults.finish_reason = "abort"
        with pytest.raises(openai.InternalServerError):
            await door.ai.chat.completions.create(model="", messages=HELLO, n=2)
        door.on.double.faults.finish_reason = "stop"
        door.on.double.hold = asyncio.Event()
        stream = await door.ai.chat.completions.create(model="", messages=HELLO, n=3, stream=True)
        await anext(aiter(stream))
        await stream.close()
        async with asyncio.timeout(5):
            while door.on.double.streams or door.on.served.answers(MODEL.name):
                door.on.double.stream_ended.clear()
                await door.on.double.stream_ended.wait()


async def test_several_answers_have_room_together_or_none_begins(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:  # with room for 4
        create = door.ai.chat.completions.create
        door.on.double.hold = asyncio.Event()
        first = await create(model="", messages=HELLO, n=2, stream=True)
        await door.on.soon(lambda: door.on.double.streams == 2)
        began = door.on.double.calls["/v1/completions"]
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError, match=r"2 answers of up to 4 .* 3 more"):
                await create(model="", messages=HELLO, n=3, stream=stream)
        with pytest.raises(openai.RateLimitError):
            await create(model="", messages=HELLO, n=5)
        assert door.on.double.calls["/v1/completions"] == began
        second = await create(model="", messages=HELLO, n=2, stream=True)
        for running in (first, second):
            await running.close()
        door.on.double.hold.set()
        await door.on.soon(lambda: not door.on.double.streams)
        assert len((await create(model="", messages=HELLO, n=4)).choices) == 4


async def test_every_token_tells_its_probability_and_the_most_probable_ones(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        create = door.ai.chat.completions.create
        whole = await create(model="", messages=HELLO, logprobs=True, top_logprobs=2)
        bare = await create(model="", messages=HELLO, logprobs=True)
        streamed = [
            token
            async for chunk in await create(model="", messages=HELLO, logprobs=True, stream=True)
            for choice in chunk.choices
            if choice.logprobs is not None
            for token in choice.logprobs.content or []
        ]
        none = await create(model="", messages=HELLO)
    assert whole.choices[0].logprobs is not None and bare.choices[0].logprobs is not None
    told = whole.choices[0].logprobs.content or []
    assert [token.token for token in told] == list(WORDS[:5])
    assert {token.logprob for token in told} == {-0.5}
    assert [(top.token, top.logprob) for top in told[0].top_logprobs] == [("t0", -0.25), (WORDS[0], -0.5)]
    assert [(token.token, token.top_logprobs) for token in bare.choices[0].logprobs.content or []] == [
        (word, []) for word in WORDS[:5]
    ]
    assert [token.token for token in streamed] == list(WORDS[:5])
    assert none.choices[0].logprobs is None


async def test_penalties_and_forms_arrive_at_the_engine(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        asked: list[Mapping[str, object]] = []

        def respond(fields: Mapping[str, object]) -> list[str]:
            asked.append(fields)
            return [TEXT]

        door.on.double.respond = respond
        formats = ({"type": "text"}, {"type": "json_object"}, wrapped(SCHEMA), wrapped({}))
        for form in formats:
            status, _ = await door.post(
                {"messages": HELLO, "response_format": form, "frequency_penalty": -2, "presence_penalty": 0.5}
            )
            assert status == 200
    assert [fields.get("structured_outputs") for fields in asked[:3]] == [
        None,
        {"json_object": True},
        {"json": SCHEMA},
    ]
    assert "json" in json.dumps(asked[3]["structured_outputs"])
    assert {(fields["frequency_penalty"], fields["presence_penalty"]) for fields in asked} == {(-2.0, 0.5)}


def deep(levels: int) -> object:
    """A schema of arrays in arrays."""
    schema: object = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ("object", ""),
        ({"type": "string", "pattern": "(a+)+$"}, "schema.pattern"),
        ({"properties": {"a": {"patternProperties": {}}}}, "schema.properties.a.patternProperties"),
        ({"$ref": "https://example.com/schema.json"}, "schema.$ref"),
        ({"$ref": "#/$defs/nowhere"}, "schema"),
        ({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}, "schema"),
        ({"type": "array", "minItems": 10**9}, "schema.minItems"),
        ({"anyOf": [{"type": "string"}, 7]}, "schema.anyOf[1]"),
        ({"properties": 7}, "schema.properties."),
        (deep(16), "schema" + ".items" * 16),
        ({"enum": ["x" * 20_000]}, "schema"),
    ],
)
async def test_a_schema_that_could_harm_the_engine_is_refused_by_the_place(
    tmp_path: Path, schema: object, field: str
) -> None:
    async with opened(tmp_path) as door:
        status, body = await door.post({"messages": HELLO, "response_format": wrapped(schema)})
        assert status == 400
        assert body["error"]["param"] == ("response_format" + (field and f".json_schema.{field}"))
        assert door.on.double.streams == 0
