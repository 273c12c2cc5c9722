"""The triage score: what counts as a verdict, what share was right, and what a broken file gets."""

import json
from pathlib import Path

import pytest

from examples.triage.score import (
    HELDOUT_PATH,
    TriageFileError,
    TriageScore,
    Verdict,
    main,
    parse_verdict,
    read_answers,
    read_rows,
    score,
)

LATE_TENT = Verdict(category="delivery", urgency="normal", summary="Tent is a week late")
ANSWER = '{"category":"delivery","urgency":"normal","summary":"Tent is a week late"}'


def test_a_compact_verdict_is_read() -> None:
    assert parse_verdict(ANSWER) == LATE_TENT


def test_whitespace_around_and_between_and_another_key_order_are_tolerated() -> None:
    answer = '\n  {"urgency": "normal", "summary": "Tent is a week late", "category": "delivery"} \n'

    assert parse_verdict(answer) == LATE_TENT


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "The customer is asking about a delivery.",
        f"```json\n{ANSWER}\n```",
        f"Sure! {ANSWER}",
        f"{ANSWER} I hope this helps.",
        f"{ANSWER}\n{ANSWER}",
        ANSWER.replace(",", ",\n"),
        ANSWER[:-1],
        ANSWER.replace('"', "'"),
        f"[{ANSWER}]",
        '[["category","delivery"],["urgency","normal"],["summary","Tent is a week late"]]',
        "null",
        "{}",
        '{"category":"delivery","urgency":"normal"}',
        '{"category":"delivery","urgency":"normal","summary":"Tent is late","mood":"cross"}',
        '{"category":"delivery","category":"billing","urgency":"normal","summary":"Tent is late"}',
        '{"category":"delivery","urgency":"normal","summary":"Tent is late","summary":"Tent is late"}',
        '{"category":"shipping","urgency":"normal","summary":"Tent is late"}',
        '{"category":"Delivery","urgency":"normal","summary":"Tent is late"}',
        '{"category":"delivery","urgency":"medium","summary":"Tent is late"}',
        '{"category":"delivery|returns","urgency":"normal","summary":"Tent is late"}',
        '{"category":"delivery","urgency":2,"summary":"Tent is late"}',
        '{"category":"delivery","urgency":["normal"],"summary":"Tent is late"}',
        '{"category":"delivery","urgency":"normal","summary":" "}',
        "[" * 100_000,
        '{"category":' * 100_000,
    ],
)
def test_anything_but_exactly_one_verdict_is_refused(answer: str) -> None:
    assert parse_verdict(answer) is None


def test_perfect_answers_score_one_in_everything() -> None:
    rows = read_rows(HELDOUT_PATH)
    answers = [json.dumps(wire_form(row.reference)) for row in rows]

    result = score(answers, [row.reference for row in rows])

    assert result == TriageScore(rows=60, valid_json=1.0, right_category=1.0, right_urgency=1.0)
    assert result.overall == 1.0


def test_garbage_scores_zero_in_everything() -> None:
    result = score(["delivery, normal", "{", ""], [LATE_TENT] * 3)

    assert result == TriageScore(rows=3, valid_json=0.0, right_category=0.0, right_urgency=0.0)
    assert result.overall == 0.0


def test_partly_right_answers_score_their_shares_and_the_summary_is_not_judged() -> None:
    answers = [
        '{"category":"delivery","urgency":"normal","summary":"Quite another summary"}',
        '{"category":"delivery","urgency":"high","summary":"Tent is a week late"}',
        '{"category":"returns","urgency":"low","summary":"Tent is a week late"}',
        f"Here you go: {ANSWER}",
    ]

    result = score(answers, [LATE_TENT] * 4)

    assert result == TriageScore(rows=4, valid_json=0.75, right_category=0.5, right_urgency=0.25)
    assert result.overall == 0.5


def test_one_label_throughout_is_right_for_one_category_in_five_and_one_urgency_in_three() -> None:
    references = [row.reference for row in read_rows(HELDOUT_PATH)]

    result = score([ANSWER] * 60, references)

    assert result.right_category == pytest.approx(1 / 5)
    assert result.right_urgency == pytest.approx(1 / 3)


@pytest.mark.parametrize("num_answers", [0, 2, 4])
def test_answers_that_do_not_match_the_references_in_number_are_refused(num_answers: int) -> None:
    with pytest.raises(ValueError, match=f"got {num_answers} and 3"):
        score([ANSWER] * num_answers, [LATE_TENT] * 3)


def test_no_answers_to_no_references_are_refused_rather_than_divided_by_zero() -> None:
    with pytest.raises(ValueError, match="at least one"):
        score([], [])


def test_the_command_prints_the_score_of_an_answer_file_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [json.dumps(wire_form(row.reference)) for row in read_rows(HELDOUT_PATH)]
    path = write_lines(
        tmp_path / "answers.jsonl", [json.dumps({"answer": a}) for a in (*answers[:30], *["no"] * 30)]
    )

    exit_status = main([str(path)])

    assert exit_status == 0
    assert json.loads(capsys.readouterr().out) == {
        "rows": 60,
        "valid_json": 0.5,
        "right_category": 0.5,
        "right_urgency": 0.5,
        "overall": 0.5,
    }


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([json.dumps({"answer": ANSWER}), "not json"], "answers.jsonl:2: not an object"),
        (['{"reply": "x"}'], "answers.jsonl:1: not an object"),
        (['{"answer": null}'], "answers.jsonl:1: answer must be text"),
        ([json.dumps({"answer": ANSWER})], "got 1 and 60"),
    ],
)
def test_the_command_says_what_is_wrong_with_an_answer_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str], complaint: str
) -> None:
    exit_status = main([str(write_lines(tmp_path / "answers.jsonl", lines))])

    captured = capsys.readouterr()
    assert (exit_status, captured.out) == (2, "")
    assert complaint in captured.err


def test_the_command_says_that_an_answer_file_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "nowhere.jsonl")]) == 2
    assert "nowhere.jsonl" in capsys.readouterr().err


def test_an_answer_may_hold_a_unicode_line_separator(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "answers.jsonl", ['{"answer": "one\u2028two"}'])

    assert read_answers(path) == ("one\u2028two",)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("[]", "not a chat row"),
        ('{"messages": [{"role": "user"}]}', "not a chat row"),
        ('{"messages": [{"role": "user", "content": "hi"}]}', "roles must be system, user, assistant"),
        (
            json.dumps({"messages": [{"role": r, "content": "hi"} for r in ("system", "user", "assistant")]}),
            "the assistant's content is not a verdict: 'hi'",
        ),
    ],
)
def test_a_row_that_is_not_a_triage_row_is_refused_with_its_line(
    tmp_path: Path, line: str, complaint: str
) -> None:
    good = HELDOUT_PATH.read_text(encoding="utf-8").split("\n", 1)[0]
    path = write_lines(tmp_path / "rows.jsonl", [good, line])

    with pytest.raises(TriageFileError) as caught:
        read_rows(path)

    assert f"rows.jsonl:2: {complaint}" in str(caught.value)


def wire_form(verdict: Verdict) -> dict[str, str]:
    """The verdict as the object a model is asked to write."""
    return {"category": verdict.category, "urgency": verdict.urgency, "summary": verdict.summary}


def write_lines(path: Path, lines: list[str]) -> Path:
    """Writes the lines as UTF-8 and hands the path back."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
