"""The example datasets are what their READMEs say: valid, varied, without leaks, right by their scorer."""

import re
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from examples.recipes import RECIPES, ROOT, Recipe
from trainer.config import Task
from trainer.records import Record, read_file
from trainer.scoring import infer_task, score
from trainer.scoring.entities import read_spans

EXAMPLES = pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.name for recipe in RECIPES])
NEW = pytest.mark.parametrize(
    "recipe",
    [recipe for recipe in RECIPES if recipe.name != "triage"],
    ids=[recipe.name for recipe in RECIPES if recipe.name != "triage"],
)


def rows(path: Path) -> list[Record]:
    """Every row; each is a conversation of three turns."""
    found = [record for record in read_file(path) if isinstance(record, Record)]
    assert all([turn.role for turn in row.messages] == ["system", "user", "assistant"] for row in found)
    return found


def both(recipe: Recipe) -> tuple[list[Record], list[Record]]:
    return rows(recipe.train_path), rows(recipe.held_out_path)


def question(row: Record) -> str:
    return row.messages[1].content


def answer(row: Record) -> str:
    return row.messages[2].content


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def test_there_is_one_example_for_each_of_the_five_uses() -> None:
    assert {recipe.task for recipe in RECIPES} == set(Task)
    assert {path.parent.name for path in ROOT.glob("*/train.jsonl")} == {recipe.name for recipe in RECIPES}


@EXAMPLES
def test_there_are_enough_rows_and_the_readme_says_how_many(recipe: Recipe) -> None:
    train, held_out = both(recipe)

    assert 110 <= len(train) <= 250 and 40 <= len(held_out) <= 60
    readme = (recipe.directory / "README.md").read_text()
    assert f"| {len(train)} rows to train on |" in readme
    assert f"| {len(held_out)} rows" in readme


@EXAMPLES
def test_every_row_has_the_same_instruction(recipe: Recipe) -> None:
    assert len({row.messages[0].content for part in both(recipe) for row in part}) == 1


@EXAMPLES
def test_no_row_occurs_twice_and_none_is_held_out_that_is_trained_on(recipe: Recipe) -> None:
    train, held_out = both(recipe)
    asked = Counter(question(row).casefold() for row in (*train, *held_out))

    assert [text for text, number in asked.items() if number > 1] == []


@NEW
def test_no_two_rows_are_alike(recipe: Recipe) -> None:
    texts = [question(row) for part in both(recipe) for row in part]
    if recipe.task is Task.QUESTION_ANSWERING:  # several questions are about one text
        texts = sorted({text.partition("\n")[0] for text in texts})

    alike = [
        (one, other)
        for one, other in combinations(texts, 2)
        if len(words(one) & words(other)) > 0.7 * len(words(one) | words(other))
    ]

    assert alike == []


@EXAMPLES
def test_what_the_rows_teach_is_seen_from_them(recipe: Recipe) -> None:
    train, held_out = both(recipe)
    prompts = ["\n".join(turn.content for turn in row.messages[:-1]) for row in (*train, *held_out)]

    assert infer_task(prompts, [answer(row) for row in (*train, *held_out)]) == recipe.task


@EXAMPLES
def test_the_right_answers_score_one_and_those_of_other_rows_do_not(recipe: Recipe) -> None:
    expected = [answer(row) for row in rows(recipe.held_out_path)]

    assert score(recipe.task, expected, expected).figures[recipe.figure] == 1.0
    assert score(recipe.task, expected[1:] + expected[:1], expected).figures[recipe.figure] < 0.8


def test_the_departments_occur_equally_often_and_are_named_in_the_instruction() -> None:
    for part in both(RECIPES[0]):
        labels = Counter(answer(row) for row in part)
        assert len(labels) == 6 and len(set(labels.values())) == 1
        assert all(label in part[0].messages[0].content for label in labels)


@NEW
def test_the_rows_are_shuffled(recipe: Recipe) -> None:
    if recipe.task is Task.CLASSIFICATION:
        labels = [answer(row) for row in rows(recipe.train_path)]
        assert sum(one == other for one, other in pairwise(labels)) < len(labels) / 3
    if recipe.task is Task.QUESTION_ANSWERING:
        texts = [question(row).partition("\n")[0] for row in rows(recipe.train_path)]
        assert sum(one == other for one, other in pairwise(texts)) < len(texts) / 4


def test_every_name_stands_in_its_text_and_some_texts_have_none() -> None:
    (recipe,) = (one for one in RECIPES if one.task is Task.ENTITIES)
    for part in both(recipe):
        for row in part:
            spans = read_spans(answer(row))
            assert spans is not None
            assert all(span.text in question(row) for span in spans)
            assert {span.type for span in spans} <= {"person", "organisation", "place"}
        assert 0.05 < sum(read_spans(answer(row)) == () for row in part) / len(part) < 0.2


def test_every_answer_stands_in_its_text_and_no_held_out_text_is_trained_on() -> None:
    (recipe,) = (one for one in RECIPES if one.task is Task.QUESTION_ANSWERING)
    texts = []
    for part in both(recipe):
        texts.append({question(row).partition("\n\nQuestion: ")[0] for row in part})
        assert all(answer(row).lower() in question(row).partition("\n")[0].lower() for row in part)

    assert not texts[0] & texts[1]


def test_every_blurb_is_in_the_house_style_and_keeps_to_the_facts() -> None:
    (recipe,) = (one for one in RECIPES if one.task is Task.GENERATION)
    for row in (*both(recipe)[0], *both(recipe)[1]):
        assert re.fullmatch(r"[A-Z].+\. Made to .+\.", answer(row))
        assert all(number in answer(row) for number in re.findall(r"\d[\d.]+", question(row)))


@EXAMPLES
def test_the_readme_shows_the_recipe_and_its_figures(recipe: Recipe) -> None:
    readme = (recipe.directory / "README.md").read_text()

    assert f"```sh\n{recipe.command}\n```" in readme
    assert f"| {recipe.figure.replace('_', ' ')} | {recipe.base:.2f} | {recipe.adapter:.2f} |" in readme
