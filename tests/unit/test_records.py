"""The parser of training files: what it accepts, what it refuses and why, and that no bytes can break it."""

import gzip
import json
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trainer.records import (
    DEFAULT_LIMITS,
    KEPT_LIMITS,
    AnyRecord,
    Format,
    Limits,
    LineProblem,
    PreferenceRecord,
    Reading,
    Record,
    RecordParser,
    RecordsError,
    TextRecord,
    Turn,
    canonical_line,
    iter_records,
    read_file,
)

ROW = b'{"prompt": "Is the shop open?", "completion": "Yes, until six."}\n'
TURNS = (
    Turn(role="user", content="Is the shop open?"),
    Turn(role="assistant", content="Yes, until six.", trained=True),
)


def parsed(content: bytes, limits: Limits = DEFAULT_LIMITS) -> list[AnyRecord | LineProblem]:
    return list(iter_records([content], limits))


def only_problem(content: bytes, limits: Limits = DEFAULT_LIMITS) -> LineProblem:
    (problem,) = [found for found in parsed(content, limits) if isinstance(found, LineProblem)]
    return problem


def test_messages_are_taken_as_they_stand_and_only_assistants_are_trained() -> None:
    conversation = [
        {"role": "system", "content": "Be kind"},
        {"role": "user", "content": " Hi\n"},
        {"role": "assistant", "content": "Hm?", "weight": 0},
        {"role": "user", "content": "Hello 🎉"},
        {"role": "assistant", "content": "Hello!", "weight": 1},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "Bye!"},
    ]

    (record,) = parsed(json.dumps({"messages": conversation}).encode())

    assert isinstance(record, Record)
    assert [(turn.role, turn.content) for turn in record.messages] == [
        (message["role"], message["content"]) for message in conversation
    ]
    assert [turn.trained for turn in record.messages] == [False, False, False, False, True, False, True]


def test_a_prompt_and_its_completion_are_a_user_and_an_assistant() -> None:
    assert parsed(ROW) == [Record(line=1, messages=TURNS)]


def test_a_prompt_and_its_completion_may_be_messages_of_which_the_prompts_are_never_trained() -> None:
    talk = [{"role": turn.role, "content": turn.content} for turn in TURNS]
    row = {"prompt": [*talk, talk[0]], "completion": [talk[1]], "tools": None}
    untrained = replace(TURNS[1], trained=False)
    assert parsed(json.dumps(row).encode()) == [
        Record(line=1, messages=(TURNS[0], untrained, TURNS[0], TURNS[1]))
    ]


def test_a_developer_is_what_a_system_is() -> None:
    row = b'{"messages": [{"role": "developer", "content": "Be kind."}, '
    row += b'{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "tools": []}'
    assert parsed(row) == parsed(row.replace(b"developer", b"system"))
    (record,) = parsed(row)
    assert isinstance(record, Record)
    assert record.messages[0].role == "system"


def test_a_prompt_that_is_json_by_itself_stays_text() -> None:
    row = {"prompt": '[{"city": "Bonn"}]', "completion": "Bonn"}
    (record,) = parsed(json.dumps(row).encode())
    assert isinstance(record, Record)
    assert record.messages[0].content == '[{"city": "Bonn"}]'


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xef\xbb\xbf" + ROW, id="byte order mark"),
        pytest.param(ROW.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(ROW.rstrip(), id="no newline at the end"),
        pytest.param(ROW + b"\n \t\n\r\n", id="blank lines"),
    ],
)
def test_harmless_differences_of_editors_are_tolerated(content: bytes) -> None:
    assert parsed(content) == [Record(line=1, messages=TURNS)]


def test_blank_lines_count_as_lines_so_that_numbers_agree_with_an_editor() -> None:
    assert [found.line for found in parsed(b"\n\n" + ROW + b"\n" + ROW)] == [3, 5]


def test_escaped_pairs_of_surrogates_are_one_character() -> None:
    (record,) = parsed(b'{"prompt": "\\ud83d\\ude00", "completion": "b"}')

    assert isinstance(record, Record)
    assert record.messages[0].content == "😀"


def test_each_bad_line_is_a_problem_of_its_own_and_good_lines_still_come() -> None:
    found = parsed(b"{}\n" + ROW + b"[]\n" + ROW)

    assert [type(one) for one in found] == [LineProblem, Record, LineProblem, Record]
    assert [one.line for one in found] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"[" * 100_000, id="lists"),
        pytest.param(b'{"a":' * 100_000, id="objects"),
        pytest.param(b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="closed lists"),
    ],
)
@pytest.mark.timeout(5)
def test_a_line_nested_100000_deep_is_refused_at_its_33rd_level(content: bytes) -> None:
    assert only_problem(content).reason.startswith("nested deeper than 32 levels")


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'"\\"' * 349_000, id="quotes"),
        pytest.param(b'{"a": "' + b'\\"' * 520_000, id="escapes in an unclosed text"),
        pytest.param(b"[" + b"[]," * 349_000, id="lists beside one another"),
        pytest.param(b"[" + b"1," * 520_000, id="numbers"),
        pytest.param(b'{"prompt": ' + b"9" * 1_000_000 + b"}", id="digits"),
        pytest.param(b":" * 1_000_000, id="colons"),
    ],
)
@pytest.mark.timeout(10)
def test_no_line_of_full_length_takes_long(line: bytes) -> None:
    assert parsed(line)[0].line == 1


def test_the_bounds_of_depth_keys_and_messages_are_inclusive() -> None:
    depth = Limits(max_depth=3)
    assert only_problem(b'{"messages": [{}]}', depth).reason == 'messages[0] has no "role"'
    assert only_problem(b'{"messages": [[[]]]}', depth).reason == "nested deeper than 3 levels at column 16"
    keys = Limits(max_keys=1)
    assert only_problem(b'{"prompt": "a"}', keys).reason == '"completion" is missing'
    assert only_problem(ROW, keys).reason.startswith("more than 1 keys in one object")
    conversation = json.dumps(
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    )
    assert len(parsed(conversation.encode(), Limits(max_messages=2))) == 1
    assert isinstance(parsed(conversation.encode(), Limits(max_messages=2))[0], Record)
    assert "more than 1 messages" in only_problem(conversation.encode(), Limits(max_messages=1)).reason


def test_brackets_and_colons_inside_texts_do_not_count() -> None:
    content = json.dumps({"prompt": '[{":' * 1000 + '\\"', "completion": "}]" * 1000})

    (record,) = parsed(content.encode())

    assert isinstance(record, Record)
    assert record.messages[0].content == '[{":' * 1000 + '\\"'


def test_a_line_of_exactly_the_limit_is_accepted_and_one_byte_more_is_refused() -> None:
    limits = Limits(max_line_bytes=len(ROW) - 1)

    assert parsed(ROW, limits) == [Record(line=1, messages=TURNS)]
    assert only_problem(b" " + ROW, limits).reason == f"the line is longer than {len(ROW) - 1} bytes"


def test_an_endless_line_is_refused_once_without_being_kept() -> None:
    parser = RecordParser()
    chunk = b"x" * 65_536
    found: list[AnyRecord | LineProblem] = []

    tracemalloc.start()
    for _ in range(1024):  # 64 MiB
        found += parser.feed(chunk)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    found += parser.feed(b"\n" + ROW)

    assert peak_bytes < 4 * 1024 * 1024
    assert [(one.line, type(one)) for one in found] == [(1, LineProblem), (2, Record)]


def test_an_archive_is_refused_before_its_first_line_ends() -> None:
    parser = RecordParser()

    found = list(parser.feed(b"PK\x03\x04" + bytes(2 * 1024 * 1024)))

    assert [one.reason for one in found if isinstance(one, LineProblem)] == [
        "the file looks like a zip archive or an Office document"
    ]
    assert parser.stopped
    assert list(parser.feed(ROW)) == []
    assert list(parser.finish()) == []


@pytest.mark.parametrize(
    ("limits", "line", "reason"),
    [
        pytest.param(Limits(max_rows=2), 3, "the file has more than 2 rows", id="rows"),
        pytest.param(Limits(max_lines=2), 3, "the file has more than 2 lines", id="lines"),
        pytest.param(Limits(max_file_bytes=150), 3, "the file is larger than 150 bytes", id="bytes"),
    ],
)
def test_a_file_past_a_limit_is_refused_there(limits: Limits, line: int, reason: str) -> None:
    found = parsed(ROW * 5, limits)

    assert [type(one) for one in found] == [Record, Record, LineProblem]
    assert found[-1] == LineProblem(line=line, reason=reason, advice=found[-1].advice, is_of_file=True)


@pytest.mark.parametrize(
    "limits", [Limits(max_rows=3), Limits(max_lines=3), Limits(max_file_bytes=3 * len(ROW))]
)
def test_a_file_that_just_fits_is_accepted(limits: Limits) -> None:
    assert len([one for one in parsed(ROW * 3, limits) if isinstance(one, Record)]) == 3
    assert not [one for one in parsed(ROW * 3, limits) if isinstance(one, LineProblem)]


def test_checking_stops_after_a_thousand_problems() -> None:
    found = parsed(b"?\n" * 5000)

    assert len(found) == 1000


def test_a_refused_file_tells_its_first_20_problems_and_how_many_there_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROW + b"{}\n" * 30)

    with pytest.raises(RecordsError) as refusal:
        read_file(path)

    assert [problem.line for problem in refusal.value.problems] == list(range(2, 22))
    assert refusal.value.total == 30
    assert str(refusal.value).endswith("(and 29 more)")


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROW * 20_000)  # more than one read

    assert [record.line for record in read_file(path)] == list(range(1, 20_001))


def test_no_reason_or_advice_carries_control_characters_or_much_of_the_file() -> None:
    hostile = json.dumps({"prompt": "a", "completion": "b", "\x1b[2J\u202e" + "x" * 100_000: 1})

    problem = only_problem(hostile.encode())

    assert problem.reason.isascii()
    assert problem.reason.isprintable()
    assert len(problem.reason) < 200


USER = {"role": "user", "content": "Open?"}
YES = {"role": "assistant", "content": "Yes."}
NO = {"role": "assistant", "content": "No."}
PAIR = PreferenceRecord(
    line=1,
    prompt=(Turn(role="user", content="Open?"),),
    chosen=(Turn(role="assistant", content="Yes.", trained=True),),
    rejected=(Turn(role="assistant", content="No.", trained=True),),
)


AS_TEXT = Reading(format=Format.TEXT)


def test_a_line_of_plain_text_above_the_bound_is_cut_between_characters() -> None:
    limits = Limits(max_line_bytes=10)
    content = "Grüße aus Köln, früh am Morgen"

    for size in (1, 7, 100):
        chunks = [content.encode()[begin : begin + size] for begin in range(0, len(content.encode()), size)]
        texts = [found for found in iter_records(chunks, limits, AS_TEXT) if isinstance(found, TextRecord)]
        assert "".join(record.text for record in texts) == content
        assert all(record.line == 1 and len(record.text.encode()) <= 10 for record in texts)


@pytest.mark.parametrize("content", [b"{% for shop in shops %}\n", b"{\n  'a': 1\n}\n", b"{"])
def test_plain_text_that_begins_with_a_brace_is_plain_text_where_that_was_said(content: bytes) -> None:
    assert list(iter_records([content], DEFAULT_LIMITS, AS_TEXT)) == [
        TextRecord(line=1, text=content.decode().rstrip("\n"))
    ]
    assert list(iter_records([b'{"text": "a"}\n'], DEFAULT_LIMITS, AS_TEXT)) == [TextRecord(line=1, text="a")]


@pytest.mark.parametrize("chunk_bytes", [1, 64, 4096])
def test_zeros_behind_a_gzip_archive_are_passed_over(chunk_bytes: int) -> None:
    content = gzip.compress(ROW) + bytes(600) + gzip.compress(ROW) + bytes(600)
    chunks = [content[begin : begin + chunk_bytes] for begin in range(0, len(content), chunk_bytes)]
    assert len([found for found in iter_records(chunks) if isinstance(found, Record)]) == 2


def test_a_text_is_a_row_of_its_own_kind() -> None:
    assert parsed(b'{"text": " The shop\\n"}') == [TextRecord(line=1, text=" The shop\n")]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Open?", "chosen": "Yes.", "rejected": "No."},
        {"prompt": [USER], "chosen": [YES], "rejected": [NO]},
        {"prompt": "Open?", "chosen": [USER, YES], "rejected": [USER, NO]},
        {"chosen": [USER, YES], "rejected": [USER, NO]},
        {
            "input": {"messages": [USER], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [YES],
            "non_preferred_output": [NO],
        },
    ],
    ids=["texts", "messages", "whole conversations", "whole conversations alone", "as OpenAI takes it"],
)
def test_a_preference_is_a_prompt_and_two_answers_however_it_is_written(row: dict[str, object]) -> None:
    assert parsed(json.dumps(row).encode()) == [PAIR]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Open?", "chosen": "Yes."}, '"rejected" is missing'),
        ({"chosen": "Yes.", "rejected": "No."}, '"prompt" is missing'),
        ({"prompt": "Open?", "chosen": "Yes.", "rejected": "Yes."}, '"chosen" and "rejected" are the same'),
        ({"prompt": [YES], "chosen": "Yes.", "rejected": "No."}, "prompt[0].role is assistant where user"),
        ({"prompt": [USER, YES], "chosen": [YES], "rejected": [NO]}, "the prompt does not end with the user"),
        ({"prompt": [USER], "chosen": [USER], "rejected": [NO]}, '"chosen" only repeats the prompt'),
        ({"prompt": [USER], "chosen": [YES, USER], "rejected": [NO]}, '"chosen" does not end with the assis'),
        ({"prompt": "Open?", "chosen": "Yes.", "rejected": 4}, '"rejected" is a number, not a string'),
        ({"prompt": "Open?", "chosen": "Yes.", "rejected": "No.", "score": 1}, 'unknown key "score"'),
    ],
)
def test_a_preference_that_says_nothing_is_refused(row: dict[str, object], reason: str) -> None:
    assert only_problem(json.dumps(row).encode()).reason.startswith(reason)


def test_a_file_holds_rows_of_one_kind_and_a_mix_is_told_by_its_line() -> None:
    found = parsed(b'\n{"text": "a"}\n' + ROW + b'{"text": "b"}\n')

    assert [type(one) for one in found] == [TextRecord, LineProblem, TextRecord]
    assert found[1] == LineProblem(
        line=3,
        reason="the row is a conversation, but line 2 is a text",
        advice="Put rows of different kinds into files of their own.",
    )


PIECES = st.sampled_from(
    [
        ROW,
        ROW.rstrip(),
        b"\n",
        b"\r\n",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\x1f\x8b",
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b"\\",
        b":",
        b",",
        b'"prompt"',
        b'"messages"',
        b'{"messages": [{"role": "user", "content": "a"}, ',
        b'{"role": "assistant", "content": "b", "weight": 0}',
        b"\\ud83d",
        b"\xc3",
        b"NaN",
        b"1e999",
        b"\0",
        b" " * 300,
        b"[" * 40,
    ]
)
FILES = st.lists(PIECES | st.binary(max_size=20), max_size=30).map(b"".join) | st.binary(max_size=400)
SMALL = Limits(max_file_bytes=1500, max_rows=5, max_lines=12, max_line_bytes=200, max_problems=6)


@settings(deadline=None, max_examples=400)
@given(
    content=FILES, cuts=st.lists(st.integers(0, 2000), max_size=12), limits=st.sampled_from([Limits(), SMALL])
)
@example(content=ROW * 40, cuts=[1, 2, 3, 64, 65, 66, 1499, 1500, 1501], limits=SMALL)
@example(content=b" " * 400 + b"\n" + ROW, cuts=list(range(1, 400)), limits=SMALL)
def test_any_bytes_in_any_chunks_get_the_verdict_of_the_whole(
    content: bytes, cuts: list[int], limits: Limits
) -> None:
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    chunks = [content[begin:end] for begin, end in pairwise(edges)]

    in_chunks = list(iter_records(chunks, limits))
    byte_by_byte = list(iter_records((bytes([byte]) for byte in content), limits))

    assert in_chunks == parsed(content, limits)
    assert byte_by_byte == in_chunks
    assert in_chunks  # never silence: rows, or a reason why there are none


TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40
).filter(lambda text: bool(text.strip()))


@settings(deadline=None)
@given(
    system=st.none() | TEXTS,
    exchanges=st.lists(st.tuples(TEXTS, TEXTS, st.booleans()), min_size=1, max_size=4),
    escaped=st.booleans(),
)
def test_every_well_formed_conversation_is_accepted_unchanged(
    system: str | None, exchanges: list[tuple[str, str, bool]], escaped: bool
) -> None:
    turns = [Turn(role="system", content=system)] if system is not None else []
    for index, (question, answer, trained) in enumerate(exchanges):
        turns += [
            Turn(role="user", content=question),
            Turn(role="assistant", content=answer, trained=trained or index == 0),
        ]
    row = {
        "messages": [
            {"role": turn.role, "content": turn.content}
            | ({"weight": int(turn.trained)} if turn.role == "assistant" else {})
            for turn in turns
        ]
    }

    record = Record(line=1, messages=tuple(turns))
    assert parsed(json.dumps(row, ensure_ascii=escaped).encode()) == [record]
    assert parsed(canonical_line(record), KEPT_LIMITS) == [record]


@settings(deadline=None)
@given(prompt=TEXTS, chosen=TEXTS, rejected=TEXTS)
def test_the_canonical_line_of_a_text_or_a_preference_gives_it_again(
    prompt: str, chosen: str, rejected: str
) -> None:
    text = TextRecord(line=1, text=prompt)
    assert parsed(canonical_line(text), KEPT_LIMITS) == [text]
    if chosen != rejected:
        (pair,) = parsed(json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}).encode())
        assert isinstance(pair, PreferenceRecord)
        assert parsed(canonical_line(pair), KEPT_LIMITS) == [pair]
