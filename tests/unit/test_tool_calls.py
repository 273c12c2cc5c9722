"""Which templates take tools, and how calls are read out of answers."""

import json
from datetime import datetime

import pytest

from tests.unit.rendering_families import CHATML_TEMPLATE, special_tokens_in, trl_templates
from trainer.rendering import ReadCall, RenderingError
from trainer.rendering.template import ChatTemplate
from trainer.rendering.texts import probe_turn_end
from trainer.rendering.tools import AnyReader, BareReader, TaggedReader, reader_for

TEMPLATES = trl_templates() | {"chatml": CHATML_TEMPLATE}
OFFERED = {"weather", "time"}
WEATHER = ReadCall(name="weather", arguments='{"city": "Rome"}')
TIME = ReadCall(name="time", arguments="{}")
WRITTEN = '{"name": "weather", "arguments": {"city": "Rome"}}'


def reader_of(name: str) -> AnyReader:
    source = TEMPLATES[name]
    template = ChatTemplate(source, {"bos_token": "<bos>", "eos_token": "<eos>"}, datetime.now)
    end = probe_turn_end(template, special_tokens_in(source))
    return reader_for(template, end.text if end else "")


def read(reader: AnyReader, pieces: list[str], *, is_whole: bool = True) -> tuple[str, list[ReadCall]]:
    """The text and the calls of an answer that comes in pieces."""
    reading = reader(OFFERED)
    found = [reading.feed(piece) for piece in pieces] + [reading.finish(is_whole=is_whole)]
    return "".join(text for text, _ in found), [call for _, calls in found for call in calls]


def cut_up(answer: str, size: int) -> list[str]:
    return [answer[begin : begin + size] for begin in range(0, len(answer), size)]


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("qwen2_5", TaggedReader),
        ("qwen3", TaggedReader),
        ("qwen3_instruct_2507", TaggedReader),
        ("llama3_1", BareReader),
        ("llama3_2", BareReader),
    ],
)
def test_the_reader_of_a_published_template_reads_back_what_it_writes(name: str, reader: AnyReader) -> None:
    assert reader_of(name) is reader


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma3", "phi3", "smolvlm"])
def test_a_template_that_renders_the_same_with_tools_takes_none(name: str) -> None:
    with pytest.raises(RenderingError, match="takes no tools"):
        reader_of(name)


@pytest.mark.parametrize("name", ["gptoss", "glm4moe", "qwen3_5_think", "lfm2"])
def test_a_template_whose_calls_nobody_here_reads_says_which_would_be_read(name: str) -> None:
    with pytest.raises(RenderingError, match=r"Qwen 2\.5 and 3"):
        reader_of(name)


@pytest.mark.parametrize(
    ("answer", "text", "calls"),
    [
        ("All is well.  ", "All is well.  ", []),
        (f"<tool_call>\n{WRITTEN}\n</tool_call>", "", [WEATHER]),
        (f"I look.\n\n<tool_call>{WRITTEN}</tool_call>\n", "I look.", [WEATHER]),
        (
            f'<tool_call>{WRITTEN}</tool_call>\n<tool_call>{{"name": "time", "arguments": {{}}}}</tool_call>',
            "",
            [WEATHER, TIME],
        ),
        (f"<tool_call>{WRITTEN}", "", [WEATHER]),
        ("1 < 2 and <tool", "1 < 2 and <tool", []),
        ("<tool_call>{</tool_call>", "<tool_call>{</tool_call>", []),
        ("<tool_call>" + "[" * 9_000 + "</tool_call>", "<tool_call>" + "[" * 9_000 + "</tool_call>", []),
        ('<tool_call>{"name": "rm", "arguments": {}}</tool_call>',) * 2 + ([],),
        ('<tool_call>{"name": "time", "arguments": {"a": NaN}}</tool_call>',) * 2 + ([],),
        ('<tool_call>{"name": "time", "arguments": "now"}</tool_call>',) * 2 + ([],),
        (f"{WRITTEN}", WRITTEN, []),
    ],
)
def test_tagged_calls_are_taken_out_however_the_answer_is_cut(
    answer: str, text: str, calls: list[ReadCall]
) -> None:
    for cut in (1, 2, 3, 5, 7, len(answer)):
        assert read(TaggedReader, cut_up(answer, cut)) == (text, calls)


def test_text_is_given_as_soon_as_it_can_be_no_part_of_a_call() -> None:
    reading = TaggedReader(OFFERED)
    assert [reading.feed(piece)[0] for piece in ("Hi", " you ", "<b>", "<tool_", "x")] == [
        "Hi",
        " you",
        " <b>",
        "",
        "<tool_x",
    ]


def test_a_call_that_was_cut_off_is_text() -> None:
    for answer in (f"<tool_call>{WRITTEN}", "<tool_call>" + WRITTEN[:20], "wait <tool"):
        assert read(TaggedReader, [answer], is_whole=False) == (answer, [])
    bare = WRITTEN.replace("arguments", "parameters")
    assert read(BareReader, [bare], is_whole=False) == (bare, [])


@pytest.mark.parametrize("cut", [1, 3, 100])
def test_a_bare_call_is_a_whole_answer(cut: int) -> None:
    bare = " " + WRITTEN.replace("arguments", "parameters")
    for answer, found in (
        (bare, ("", [WEATHER])),
        (bare + " is a call", (bare + " is a call", [])),
        (" hello", (" hello", [])),
        (WRITTEN, (WRITTEN, [])),
    ):
        assert read(BareReader, cut_up(answer, cut)) == found
    reading = BareReader(OFFERED)
    assert [reading.feed(piece)[0] for piece in (" ", "Hello", " you")] == ["", " Hello", " you"]


def test_arguments_are_json_that_anybody_reads() -> None:
    odd = '{"name": "time", "arguments": {"half": "\\ud800", "big": 123456789012345678901234567890}}'
    _, (call,) = read(TaggedReader, [f"<tool_call>{odd}</tool_call>"])
    assert call.arguments.isascii()
    assert json.loads(call.arguments)["big"] == 123456789012345678901234567890
