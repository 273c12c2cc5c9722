"""Looking at a file: what is refused and how that is told, what is kept, and what the report says."""

import gzip
import json
from pathlib import Path

import pytest

from tests.malformed import CASES, CONTEXT_LENGTH, FOLDER, LIMITS, ROW, Case, lines, parquet
from tests.tiny_renderer import tiny_renderer
from trainer.config import Task
from trainer.inspection import BadRows, Draft, Repeat, Report, Wish
from trainer.records import Format, Limits, Reading, Record, TextRecord, Turn, read_file
from trainer.rendering import Renderer

DROP = Wish(bad_rows=BadRows.DROP)
HELLO = (Turn(role="user", content="Hi"), Turn(role="assistant", content="Hello", trained=True))


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    return tiny_renderer(tmp_path_factory.mktemp("base"))


def looked_at(
    content: bytes,
    path: Path,
    renderer: Renderer | None,
    wish: Wish,
    *,
    limits: Limits = LIMITS,
    piece_bytes: int = 65_536,
) -> Draft:
    """The draft of a file, all work done."""
    draft = Draft(path=path, renderer=renderer, context_length=CONTEXT_LENGTH, wish=wish, limits=limits)
    for begin in range(0, len(content), piece_bytes):
        draft.receive(content[begin : begin + piece_bytes])
    draft.finish()
    while not draft.work(seconds=0.01):
        pass
    return draft


def report_of(content: bytes, tmp_path: Path, renderer: Renderer, wish: Wish = DROP) -> Report:
    draft = looked_at(content, tmp_path / "rows.part", renderer, wish)
    report = draft.report()
    draft.discard()
    return report


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_malformed_file_is_refused_with_its_place_a_reason_and_advice(
    case: Case, tmp_path: Path, renderer: Renderer
) -> None:
    draft = looked_at(case.content(), tmp_path / "rows.part", renderer, case.wish)
    draft.discard()

    first = draft.problems[0]
    assert (first.place, first.reason) == (case.place, case.reason)
    assert case.advice in first.advice
    assert draft.is_refused
    assert list(tmp_path.iterdir()) == []


def test_every_malformed_file_has_its_verdict_in_the_catalogue() -> None:
    named = {case.name for case in CASES if case.make is None}
    assert {path.name for path in FOLDER.iterdir()} == named
    assert len(CASES) > 100


TABLE = b'prompt,completion\r\nHi,Hello\r\n"Say ""x"", please",x\r\n'
SAME_ROWS = {
    "JSON Lines": b'{"prompt": "Hi", "completion": "Hello"}\n'
    b'{"prompt": "Say \\"x\\", please", "completion": "x"}',
    "a JSON list": b'[{"prompt": "Hi", "completion": "Hello"},'
    b' {"prompt": "Say \\"x\\", please", "completion": "x"}]',
    "CSV": TABLE,
    "CSV with a byte order mark": b"\xef\xbb\xbf" + TABLE,
    "tabs": b'prompt\tcompletion\nHi\tHello\n"Say ""x"", please"\tx\n',
    "semicolons": b'prompt;completion\nHi;Hello\n"Say ""x"", please";x',
    "Parquet": parquet({"prompt": ["Hi", 'Say "x", please'], "completion": ["Hello", "x"]}),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("piece_bytes", [1, 7, 65_536])
@pytest.mark.parametrize("container", SAME_ROWS)
def test_the_same_rows_come_out_of_every_container(
    container: str, piece_bytes: int, packed: bool, tmp_path: Path
) -> None:
    content = gzip.compress(SAME_ROWS[container]) if packed else SAME_ROWS[container]
    path = tmp_path / "rows.part"

    draft = looked_at(content, path, None, Wish(), piece_bytes=piece_bytes)

    assert draft.problems == []
    kept = [record for record in read_file(path) if isinstance(record, Record)]
    assert [[turn.content for turn in record.messages] for record in kept] == [
        ["Hi", "Hello"],
        ['Say "x", please', "x"],
    ]
    draft.discard()


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
        {"prompt": "Hi", "completion": "Hello"},
        {"instruction": "Hi", "input": "", "output": "Hello"},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "id": "7"},
    ],
    ids=["chat", "prompt and completion", "Alpaca", "ShareGPT"],
)
def test_every_shape_becomes_the_same_conversation(row: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "rows.part"

    looked_at(json.dumps(row).encode(), path, None, Wish())

    assert read_file(path) == [Record(line=1, messages=HELLO)]


def test_alpaca_puts_the_input_below_the_instruction_and_history_before_it(tmp_path: Path) -> None:
    row = {"instruction": "Sum up", "input": "A b.", "output": "B.", "system": "Be brief"}
    path = tmp_path / "rows.part"

    looked_at(json.dumps({**row, "history": [["Hi", "Hello"]]}).encode(), path, None, Wish())

    (record,) = read_file(path)
    assert isinstance(record, Record)
    assert record.messages == (
        Turn(role="system", content="Be brief"),
        *HELLO,
        Turn(role="user", content="Sum up\n\nA b."),
        Turn(role="assistant", content="B.", trained=True),
    )


@pytest.mark.parametrize(
    "content",
    [b"question,answer,id\nHi,Hello,1\n", parquet({"question": ["Hi"], "answer": ["Hello"], "id": [1]})],
)
def test_a_mapping_names_the_columns_and_others_are_left_alone(content: bytes, tmp_path: Path) -> None:
    wish = Wish(reading=Reading(mapping={"prompt": "question", "completion": "answer"}))
    path = tmp_path / "rows.part"

    draft = looked_at(content, path, None, wish)

    assert draft.problems == []
    assert [record.messages for record in read_file(path) if isinstance(record, Record)] == [HELLO]


def test_messages_in_a_cell_of_a_table_are_read_as_json(tmp_path: Path) -> None:
    cell = json.dumps([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])
    content = b'id,messages\n1,"' + cell.replace('"', '""').encode() + b'"\n'
    path = tmp_path / "rows.part"

    looked_at(content, path, None, Wish(reading=Reading(mapping={"messages": "messages"})))

    assert [record.messages for record in read_file(path) if isinstance(record, Record)] == [HELLO]


def test_plain_text_is_one_document_in_pieces_that_end_between_paragraphs(tmp_path: Path) -> None:
    paragraph = "The shop is open until six.\n" * 400
    content = "\n".join([paragraph] * 8)
    path = tmp_path / "rows.part"

    looked_at(content.encode(), path, None, Wish(reading=Reading(format=Format.TEXT)))

    pieces = [record for record in read_file(path) if isinstance(record, TextRecord)]
    assert 1 < len(pieces) < 8
    assert "\n\n".join(piece.text for piece in pieces) == content.rstrip("\n")
    assert [piece.line for piece in pieces] == [1, 1204, 2407][: len(pieces)]


def test_bad_rows_are_left_out_where_that_was_asked_for(tmp_path: Path, renderer: Renderer) -> None:
    content = ROW + b"oops\n" + lines("word " * 200) + lines("Yes.") + b"[1]\n" + b"oops\n" * 30
    path = tmp_path / "rows.part"

    draft = looked_at(content, path, renderer, DROP)
    report = draft.report()

    assert not draft.is_refused
    assert [record.line for record in read_file(path)] == [1, 4]
    assert (report.rows_kept, report.rows_dropped) == (2, 33)
    assert len(report.problems) == 20
    assert report.reasons == {
        "not JSON: expecting value at column N": 31,
        "the row is a list, not an object": 1,
        "the row has N tokens, more than the context of N that is served": 1,
    }


def test_duplicates_and_leaks_are_found(tmp_path: Path, renderer: Renderer) -> None:
    same = lines(*["Yes."] * 19).splitlines(keepends=True)
    content = b"".join([*same, same[3]])

    report = report_of(content, tmp_path, renderer)

    assert report.duplicates == 1
    assert report.duplicate_rows == (Repeat(line=20, first_line=4),)
    assert report.leaks == 0
    repeated = report_of(ROW * 20, tmp_path, renderer)
    assert (repeated.duplicates, repeated.leaks) == (19, 2)


def test_tokens_are_counted_and_their_distribution_told(tmp_path: Path, renderer: Renderer) -> None:
    content = lines(*["a" * length for length in range(1, 101)])

    report = report_of(content, tmp_path, renderer)

    overhead = report.longest_row_tokens - 100  # of the prompt "Which? 99" and the marks of turns
    assert report.longest_row_line == 100
    assert report.token_percentiles[99] <= report.longest_row_tokens
    assert report.token_percentiles[50] == pytest.approx(50 + overhead, abs=1)
    assert report.trained_tokens == sum(range(1, 101)) + 100
    assert report.tokens > report.trained_tokens


def test_texts_longer_than_the_context_are_cut_and_not_refused(tmp_path: Path, renderer: Renderer) -> None:
    report = report_of(json.dumps({"text": "word " * 200}).encode(), tmp_path, renderer, Wish())

    assert (report.rows_kept, report.rows_cut, report.rows_dropped) == (1, 1, 0)


def test_labels_are_counted_where_the_task_has_them(tmp_path: Path, renderer: Renderer) -> None:
    wish = Wish(task=Task.CLASSIFICATION)

    assert report_of(lines("bug", "billing", "bug"), tmp_path, renderer, wish).labels == {
        "bug": 2,
        "billing": 1,
    }
    assert report_of(lines("bug", "billing", "bug"), tmp_path, renderer).labels == {}


def test_a_report_is_read_as_it_was_kept(tmp_path: Path, renderer: Renderer) -> None:
    report = report_of(
        ROW * 20 + b"oops\n", tmp_path, renderer, Wish(bad_rows=BadRows.DROP, task=Task.CLASSIFICATION)
    )

    assert report.problems
    assert Report.from_json(report.to_json()) == report


def test_the_preview_shows_what_is_trained(tmp_path: Path, renderer: Renderer) -> None:
    draft = looked_at(ROW * 9, tmp_path / "rows.part", renderer, Wish())

    assert [row.line for row in draft.preview] == [1, 2, 3]
    assert [segment.text for segment in draft.preview[0].segments if segment.trained] == [
        "Yes, until six.<|im_end|>"
    ]
    draft.discard()
