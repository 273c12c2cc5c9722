"""The triage files are what their README says: valid, balanced, and no two rows alike."""

import json
import re
from collections import Counter
from itertools import combinations, product
from pathlib import Path

import pytest

from examples.triage.score import CATEGORIES, HELDOUT_PATH, TRAIN_PATH, URGENCIES, TriageRow, read_rows

TRAIN = read_rows(TRAIN_PATH)
HELDOUT = read_rows(HELDOUT_PATH)
FILES = pytest.mark.parametrize("rows", [TRAIN, HELDOUT], ids=["train", "heldout"])
FILE_PATHS = pytest.mark.parametrize("path", [TRAIN_PATH, HELDOUT_PATH], ids=["train", "heldout"])


def test_there_are_210_rows_to_train_on_and_60_held_out() -> None:
    assert (len(TRAIN), len(HELDOUT)) == (210, 60)


@FILES
def test_every_pair_of_category_and_urgency_occurs_equally_often(rows: tuple[TriageRow, ...]) -> None:
    pairs = Counter((row.reference.category, row.reference.urgency) for row in rows)

    assert pairs == dict.fromkeys(product(CATEGORIES, URGENCIES), len(rows) // 15)


@FILES
def test_the_rows_are_shuffled_so_that_any_quarter_of_a_file_shows_every_label(
    rows: tuple[TriageRow, ...],
) -> None:
    quarter = len(rows) // 4

    for start in range(0, len(rows) - quarter + 1, quarter):
        part = rows[start : start + quarter]
        assert {row.reference.category for row in part} == set(CATEGORIES)
        assert {row.reference.urgency for row in part} == set(URGENCIES)


@FILE_PATHS
def test_every_verdict_is_compact_json_with_the_keys_in_one_order(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)["messages"][2]["content"]
        verdict = json.loads(answer)

        assert list(verdict) == ["category", "urgency", "summary"]
        assert answer == json.dumps(verdict, ensure_ascii=False, separators=(",", ":"))


def test_every_row_has_the_same_instruction_and_it_names_every_allowed_label() -> None:
    (instruction,) = {row.system for row in (*TRAIN, *HELDOUT)}

    assert all(label in instruction for label in (*CATEGORIES, *URGENCIES))


@FILES
def test_messages_have_15_to_60_words_and_summaries_4_to_10(rows: tuple[TriageRow, ...]) -> None:
    assert all(15 <= len(row.message.split()) <= 60 for row in rows)
    assert all(4 <= len(row.reference.summary.split()) <= 10 for row in rows)


def test_no_two_messages_are_alike_within_or_across_the_files() -> None:
    messages = [row.message for row in (*TRAIN, *HELDOUT)]

    alike = [(one, other) for one, other in combinations(messages, 2) if word_overlap(one, other) > 0.4]

    assert alike == []


def test_no_summary_occurs_twice_within_or_across_the_files() -> None:
    summaries = [row.reference.summary.lower() for row in (*TRAIN, *HELDOUT)]

    assert len(set(summaries)) == len(summaries)


def test_word_overlap_is_1_for_the_same_words_and_0_for_none_in_common() -> None:
    assert word_overlap("My parcel is late!", "is my PARCEL late") == 1
    assert word_overlap("My parcel is late", "the printer jams") == 0


def word_overlap(one: str, other: str) -> float:
    """Jaccard similarity of the two sets of lower-case words, in 0..1."""
    words, other_words = (set(re.findall(r"[\w']+", text.lower())) for text in (one, other))
    return len(words & other_words) / len(words | other_words)
