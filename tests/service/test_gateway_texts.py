"""Texts that are gone on with, as the `openai` package asks for them: /v1/completions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.doubles.engine import WORDS
from tests.service.serving_stage import MODEL
from tests.service.test_gateway import TEXT, Door, opened


async def post(door: Door, body: Mapping[str, Any]) -> tuple[int, Any]:
    """Status and JSON."""
    async with door.http.post(f"{door.url}/v1/completions", json=body) as response:
        return response.status, await response.json()


async def test_a_text_is_gone_on_with_as_it_stands_by_base_and_adapter(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        await door.on.outcome(await door.on.publish("support", b"one"))
        asked: list[Mapping[str, object]] = []

        def respond(fields: Mapping[str, object]) -> tuple[str, ...]:
            asked.append(fields)
            return WORDS[:5]

        door.on.double.respond = respond
        base = await door.ai.completions.create(model=MODEL.name, prompt="hello world")
        raw = await door.ai.completions.with_raw_response.create(
            model="support", prompt=["hello world"], max_tokens=2
        )
    adapted = raw.parse()
    assert (base.object, base.model, base.choices[0].text) == ("text_completion", MODEL.name, TEXT)
    assert base.id.startswith("cmpl-")
    assert (adapted.model, adapted.choices[0].text) == ("support@1", "".join(WORDS[:2]))
    assert raw.headers["Hotlora-Model"] == "support@1"
    assert adapted.choices[0].finish_reason == "length"
    assert base.usage is not None
    # The tokens of the text alone: no template, no role.
    assert asked[0]["prompt"] == asked[1]["prompt"]
    assert base.usage.prompt_tokens == len(list(asked[0]["prompt"])) == 2  # type: ignore[call-overload]
    assert [fields["max_tokens"] for fields in asked] == [16, 2]


async def test_a_streamed_text_has_every_answer_its_probabilities_and_usage(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        stream = await door.ai.completions.create(
            model="",
            prompt="hello",
            n=2,
            logprobs=1,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        whole = await door.ai.completions.create(model="", prompt="hello", n=2, logprobs=1)
    for index, choice in enumerate(whole.choices):
        pieces = [each for chunk in chunks for each in chunk.choices if each.index == index]
        assert "".join(piece.text for piece in pieces) == choice.text == TEXT
        told = [piece.logprobs for piece in pieces if piece.logprobs is not None]
        assert choice.logprobs is not None
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            streamed = [value for each in told for value in getattr(each, name)]
            assert streamed == getattr(choice.logprobs, name)
        assert choice.logprobs.tokens == list(WORDS[:5])
        offsets = choice.logprobs.text_offset or []
        assert [TEXT[begin : begin + 4] for begin in offsets] == [
            TEXT[TEXT.index(word) :][:4] for word in WORDS[:5]
        ]
    assert chunks[-1].usage == whole.usage
    assert whole.usage is not None and whole.usage.completion_tokens == 10


async def test_a_text_answer_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        door.on.double.faults.finish_reason = "abort"
        with pytest.raises(openai.InternalServerError):
            await door.ai.completions.create(model="", prompt="hello")
        with pytest.raises(openai.APIError):
            async for _ in await door.ai.completions.create(model="", prompt="hello", stream=True):
                pass


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2, 3]}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": "hello " * 5_000}, "prompt"),
        ({"messages": []}, "messages"),
        ({"echo": True}, "echo"),
        ({"best_of": 3}, "best_of"),
        ({"best_of": []}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 100}}, "logit_bias"),
        ({"prompt_embeds": "AAAA"}, "prompt_embeds"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"max_tokens": 100_000}, "max_tokens"),
    ],
)
async def test_a_wrong_field_of_a_text_is_refused_by_its_name(
    tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    async with opened(tmp_path) as door:
        status, body = await post(door, {"model": "", "prompt": "hello", **change})
        assert (status, body["error"]["param"]) == (400, field)
        assert door.on.double.streams == 0
