"""Tools, as the `openai` package offers them: on a base whose template takes them, and on one without."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.service.serving_stage import renderer
from tests.service.test_gateway import HELLO, Door, opened
from tests.unit.rendering_families import trl_templates

QWEN = trl_templates()["qwen2_5"]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA},
}
TIME: Any = {"type": "function", "function": {"name": "time"}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
CALLING: Any = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT: Any = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
CALLS = (
    "I look. ",
    "<tool_",
    'call>\n{"name": "weather", ',
    '"arguments": {"city": "Rome"}}',
    "\n</tool",
    "_call>\n<tool_call>",
    '{"name": "time", "arguments": {}}</tool_call>',
)


def says(door: Door, tokens: Sequence[str]) -> list[Mapping[str, object]]:
    """Have the engine answer with these, and see what it was asked."""
    asked: list[Mapping[str, object]] = []

    def respond(fields: Mapping[str, object]) -> Sequence[str]:
        asked.append(fields)
        return tokens

    door.on.double.respond = respond
    return asked


async def test_calls_come_apart_from_the_text_whole_and_streamed(tmp_path: Path) -> None:
    async with opened(tmp_path, template=QWEN) as door:
        says(door, CALLS)
        create = door.ai.chat.completions.create
        whole = await create(model="", messages=HELLO, tools=[WEATHER, TIME], n=2)
        raw = [
            chunk
            async for chunk in await create(
                model="",
                messages=HELLO,
                tools=[WEATHER, TIME],
                stream=True,
                stream_options={"include_usage": True},
            )
        ]
        async with door.ai.chat.completions.stream(model="", messages=HELLO, tools=[WEATHER, TIME]) as stream:
            folded = await stream.get_final_completion()
    *chunks, last = raw
    assert last.usage is not None and last.usage.completion_tokens == len(CALLS)
    pieces = [chunk.choices[0] for chunk in chunks]
    assert "".join(piece.delta.content or "" for piece in pieces) == "I look."
    assert [piece.finish_reason for piece in pieces if piece.finish_reason] == ["tool_calls"]
    called = [call for piece in pieces for call in piece.delta.tool_calls or []]
    assert [call.index for call in called] == [0, 1]
    for choice in (*whole.choices, folded.choices[0]):
        assert (choice.message.content, choice.finish_reason) == ("I look.", "tool_calls")
        told = [
            (call.function.name, json.loads(call.function.arguments))
            for call in choice.message.tool_calls or []
            if call.type == "function"
        ]
        assert told == [("weather", {"city": "Rome"}), ("time", {})]
    ids = [call.id for choice in whole.choices for call in choice.message.tool_calls or []]
    assert len(set(ids)) == 4


async def test_a_family_whose_call_is_the_whole_answer_is_read_as_its_template_writes(tmp_path: Path) -> None:
    async with opened(tmp_path, template=trl_templates()["llama3_2"]) as door:
        says(door, ['{"name": "weather", ', '"parameters": {"city": "Rome"}}'])
        create = door.ai.chat.completions.create
        first = (await create(model="", messages=HELLO, tools=[WEATHER])).choices[0]
        says(door, ["Sunny."])
        result: Any = {**RESULT, "tool_call_id": (first.message.tool_calls or [])[0].id}
        messages: Any = [*HELLO, first.message, result]
        second = (await create(model="", messages=messages, tools=[WEATHER])).choices[0]
    assert (first.message.content, first.finish_reason) == (None, "tool_calls")
    assert (second.message.content, second.finish_reason) == ("Sunny.", "stop")


async def test_what_the_model_reads_is_what_its_own_template_writes_of_tools(tmp_path: Path) -> None:
    async with opened(tmp_path, template=QWEN) as door:
        asked = says(door, ["Sunny."])
        messages = [*HELLO, CALLING, RESULT]
        answer = await door.ai.chat.completions.create(model="", messages=messages, tools=[WEATHER, TIME])
        prompt = asked[0]["prompt"]
        assert isinstance(prompt, list)
        text = renderer(tmp_path / "same", QWEN).decode(prompt)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Sunny.", "stop")
    offered = text.partition("<tools>\n")[2].partition("\n</tools>")[0]
    filled = {"description": "", "parameters": {"type": "object", "properties": {}}}
    assert [json.loads(line) for line in offered.splitlines()] == [
        WEATHER,
        {"type": "function", "function": {**TIME["function"], **filled}},
    ]
    assert '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>' in text
    assert "<tool_response>\nsunny\n</tool_response>" in text
    # Some families write calls with special tokens, which engines leave out of the text.
    assert asked[0]["skip_special_tokens"] is False


async def test_an_answer_goes_back_as_it_came_and_the_conversation_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path, template=QWEN) as door:
        says(door, CALLS)
        create = door.ai.chat.completions.create
        first = (await create(model="", messages=HELLO, tools=[WEATHER, TIME])).choices[0].message
        results: Any = [
            {"role": "tool", "tool_call_id": call.id, "content": ""} for call in first.tool_calls or []
        ]
        says(door, ["Done."])
        messages: Any = [*HELLO, first, *results[::-1]]
        second = await create(model="", messages=messages, tools=[WEATHER, TIME])
        thanks: Any = {"role": "user", "content": "thanks"}
        # What was called before stays a part of a conversation that offers nothing any more.
        third = await create(model="", messages=[*messages, thanks])
    assert {each.choices[0].message.content for each in (second, third)} == {"Done."}


@pytest.mark.parametrize("more", [{}, {"tools": [WEATHER, TIME], "tool_choice": "none"}, {"tools": []}])
async def test_where_nothing_is_offered_a_call_is_text(tmp_path: Path, more: dict[str, Any]) -> None:
    async with opened(tmp_path, template=QWEN) as door:
        asked = says(door, CALLS)
        status, answer = await door.post({"messages": HELLO, **more})
        plain, _ = await door.post({"messages": HELLO})
    assert (status, plain) == (200, 200)
    assert answer["choices"][0]["message"]["content"] == "".join(CALLS)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert asked[0]["prompt"] == asked[1]["prompt"]


@pytest.mark.parametrize(
    ("max_tokens", "content", "names"),
    [(4, "I look." + "".join(CALLS[1:4]), []), (6, "I look.<tool_call>", ["weather"])],
)
async def test_an_answer_that_its_limit_cuts_ends_with_length_and_calls_what_was_whole(
    tmp_path: Path, max_tokens: int, content: str, names: list[str]
) -> None:
    async with opened(tmp_path, template=QWEN) as door:
        says(door, CALLS)
        answer = await door.ai.chat.completions.create(
            model="", messages=HELLO, tools=[WEATHER, TIME], max_tokens=max_tokens
        )
    (choice,) = answer.choices
    assert (choice.finish_reason, choice.message.content) == ("length", content)
    called = [call.function for call in choice.message.tool_calls or [] if call.type == "function"]
    assert [function.name for function in called] == names


async def test_a_base_without_tools_says_exactly_that(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        with pytest.raises(openai.BadRequestError, match="the base model's chat template takes no tools"):
            await door.ai.chat.completions.create(model="", messages=HELLO, tools=[WEATHER])
        for messages, field in (
            ([*HELLO, CALLING, RESULT], "messages[1].tool_calls"),
            ([*HELLO, RESULT], "messages[1].role"),
        ):
            status, body = await door.post({"messages": messages})
            assert (status, body["error"]["param"]) == (400, field)
            assert "takes no tools" in body["error"]["message"]
        assert door.on.double.streams == 0


def tool(**function: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": "f", **function}}


DEEP: Any = 0
for _ in range(17):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tools": "weather"}, "tools"),
        ({"tools": [TIME] * 129}, "tools"),
        ({"tools": [7]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tools": [{**TIME, "type": "code_interpreter"}]}, "tools[0].type"),
        ({"tools": [{**TIME, "url": "http://x"}]}, "tools[0].url"),
        ({"tools": [TIME, TIME]}, "tools[1].function.name"),
        ({"tools": [tool(name="a b")]}, "tools[0].function.name"),
        ({"tools": [tool(strict=True)]}, "tools[0].function.strict"),
        ({"tools": [tool(code="x")]}, "tools[0].function.code"),
        ({"tools": [tool(description="x" * 5_000)]}, "tools[0].function.description"),
        ({"tools": [tool(description="\ud800")]}, "tools[0].function.description"),
        ({"tools": [tool(parameters=[])]}, "tools[0]"),
        ({"tools": [tool(parameters={"pattern": "(a+)+$"})]}, "tools[0].function.parameters.pattern"),
        ({"tools": [tool(parameters={"default": DEEP})]}, "tools[0].function.parameters.default"),
        ({"tools": [tool(parameters={"minimum": float("nan")})]}, "tools[0].function.parameters.minimum"),
        ({"tools": [tool(parameters={"$ref": "http://x"})]}, "tools[0].function.parameters.$ref"),
        ({"tools": [tool(name=f"f{n}", description="x" * 4_000) for n in range(17)]}, "tools"),
        ({"tools": [TIME], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [TIME], "tool_choice": {"type": "function", "function": {"name": "time"}}}, "tool_choice"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tools": [TIME], "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"tools": [TIME], "response_format": {"type": "json_object"}}, "response_format"),
        ({"functions": [{"name": "time"}]}, "functions"),
        ({"messages": [*HELLO, RESULT]}, "messages[1].role"),
        ({"messages": [*HELLO, CALLING]}, "messages"),
        ({"messages": [*HELLO, CALLING, *HELLO]}, "messages[2].role"),
        (
            {"messages": [*HELLO, CALLING, {**RESULT, "tool_call_id": "other"}]},
            "messages[2].tool_call_id",
        ),
        ({"messages": [*HELLO, CALLING, RESULT, RESULT]}, "messages[3].role"),
        ({"messages": [*HELLO, CALLING, {"role": "tool", "content": "x"}]}, "messages[2].tool_call_id"),
        ({"messages": [*HELLO, {**CALLING, "tool_calls": []}, RESULT]}, "messages[1].tool_calls"),
        ({"messages": [*HELLO, {**CALLING, "tool_calls": [CALL, CALL]}]}, "messages[1].tool_calls[1].id"),
        (
            {"messages": [*HELLO, {**CALLING, "tool_calls": [{**CALL, "function": {"name": "f"}}]}]},
            "messages[1].tool_calls[0]",
        ),
        *(
            (
                {
                    "messages": [
                        *HELLO,
                        {**CALLING, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": text}}]},
                    ]
                },
                "messages[1].tool_calls[0]",
            )
            for text in (
                "[]",
                "{",
                '{"a": NaN}',
                '{"a": ' + "[" * 5_000,
                json.dumps({"a": DEEP}),
                "x" * 70_000,
            )
        ),
    ],
)
async def test_what_is_wrong_with_tools_is_refused_by_its_place(
    tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    async with opened(tmp_path, template=QWEN) as door:
        status, body = await door.post({"messages": HELLO, **change})
        assert (status, body["error"]["param"]) == (400, field)
        assert door.on.double.calls["/v1/completions"] == 0
