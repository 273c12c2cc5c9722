"""The scorers give the figures of the libraries that define them, and judge odd answers without falling."""

import pytest

from trainer.scoring import Task, given_label, headline_figure, infer_task, labels_of, score
from trainer.scoring.answers import contains, exact_match, normalised, token_f1
from trainer.scoring.entities import Span, count, read_spans, total
from trainer.scoring.fields import judge
from trainer.scoring.generation import character_counts, chrf, rouge_l

TEXTS = [
    ("The cat sat on the mat.", "A cat was sitting on the mat."),
    (
        "A hand-thrown mug, glazed in sea green; holds 350 ml.",
        "Hand-thrown stoneware mug in sea-green glaze, 350 ml.",
    ),
    ("", "Not a word was given."),
    ("identical words here", "identical words here"),
    ("ab", "abcdefgh"),
    ("Straße über Köln", "Strasse ueber Köln"),
    ("completely different", "nothing shared whatsoever at all"),
]
"""(answer, reference)."""


@pytest.mark.parametrize(
    ("texts", "expected"),
    # rouge-score 0.1.2, RougeScorer(["rougeL"], use_stemmer=False)
    list(zip(TEXTS[:5] + TEXTS[6:], [0.615385, 0.761905, 0.0, 1.0, 0.0, 0.0], strict=True)),
)
def test_rouge_l_is_that_of_rouge_score(texts: tuple[str, str], expected: float) -> None:
    assert rouge_l(*texts) == pytest.approx(expected, abs=1e-6)


def test_rouge_l_knows_words_beyond_ascii() -> None:
    assert rouge_l("Страница не найдена", "страница не найдена") == 1.0


@pytest.mark.parametrize(
    ("texts", "expected"),
    # sacrebleu 2.6.0, CHRF().corpus_score([answer], [[reference]]).score / 100
    list(zip(TEXTS, [0.397849, 0.455265, 0.0, 1.0, 0.234043, 0.457443, 0.089564], strict=True)),
)
def test_chrf_of_one_text_is_that_of_sacrebleu(texts: tuple[str, str], expected: float) -> None:
    assert chrf([character_counts(*texts)]) == pytest.approx(expected, abs=1e-6)


def test_chrf_of_a_corpus_is_that_of_sacrebleu_and_not_a_mean_of_texts() -> None:
    assert chrf([character_counts(*texts) for texts in TEXTS]) == pytest.approx(0.39001, abs=1e-6)


def test_accuracy_and_macro_f1_are_those_of_scikit_learn() -> None:
    right = ["a", "b", "c", "a", "b", "c", "a", "d"]
    given = ["a", "b", "a", "a", "I cannot say", "c", "b", "e"]

    judged = score(Task.CLASSIFICATION, given, right, labels=["e"])

    # scikit-learn 1.9: f1_score(right, given, labels=list("abcde"), average="macro", zero_division=0)
    assert judged.figures["macro_f1"] == pytest.approx(0.3666666666)
    assert judged.figures["accuracy"] == judged.headline == 0.5
    assert judged.figures["labelled"] == 7 / 8
    assert judged.confusion is not None
    assert judged.confusion.labels == ("a", "b", "c", "d", "e")
    assert judged.confusion.counts[1] == (0, 1, 0, 0, 0, 1)  # b: once right, once no label
    assert judged.credit == (1, 1, 0, 1, 0, 1, 0, 0)


@pytest.mark.parametrize("answer", ["billing", " Billing.\n", '"billing"', "**BILLING**", "`billing`."])
def test_a_label_is_read_whatever_its_case_quotes_and_full_stop(answer: str) -> None:
    assert given_label(answer, ["billing", "delivery"]) == "billing"


@pytest.mark.parametrize("answer", ["", "billing, delivery", "The label is billing", "bill", "billing!?"])
def test_anything_but_one_label_is_no_label(answer: str) -> None:
    assert given_label(answer, ["billing", "delivery"]) == ""


def test_labels_that_differ_by_case_alone_stay_apart() -> None:
    assert given_label("us", ["US", "us"]) == "us"
    assert given_label("US", ["US", "us"]) == "US"


def test_spans_are_counted_as_by_seqeval() -> None:
    # The same as tags, by seqeval 1.2.2: precision 0.4, recall 0.5, F1 0.444...
    wanted = ['{"PER":["Ada Byron"],"LOC":["Rome"]}', '{"ORG":["Acme Ltd"],"LOC":["New York"]}', "{}"]
    given = ['{"PER":["Ada"],"LOC":["Rome"]}', '{"ORG":["Acme Ltd"],"PER":["New York"]}', '{"LOC":["It"]}']

    judged = score(Task.ENTITIES, given, wanted)

    assert judged.figures == pytest.approx({"f1": 4 / 9, "precision": 0.4, "recall": 0.5, "readable": 1.0})
    assert judged.credit == pytest.approx((0.5, 0.5, 0.0))


def test_a_mention_counts_as_often_as_it_is_wanted() -> None:
    rome = Span(type="place", text="Rome")

    counts = count([rome, rome, rome], [rome, rome])

    assert (counts.right, counts.given, counts.wanted) == (2, 3, 2)
    assert (counts.precision, counts.recall) == (2 / 3, 1.0)


def test_places_decide_where_the_right_answer_has_them() -> None:
    wanted = read_spans('[{"type":"place","text":"Rome","start":10,"end":14}]')
    assert wanted is not None

    right = read_spans('[{"type":"place","text":"rome","start":10,"end":14}]')
    elsewhere = read_spans('[{"type":"place","text":"Rome","start":0,"end":4}]')
    without = read_spans('[{"type":"place","text":"Rome"}]')

    assert [count(given or (), wanted).right for given in (right, elsewhere, without)] == [1, 0, 0]


def test_nothing_wanted_and_nothing_given_is_right() -> None:
    assert total([count((), ())]).f1 == 1.0
    assert count((), ()).precision == count((), ()).recall == 1.0
    assert count((), (Span(type="a", text="b"),)).precision == 0.0
    assert count((Span(type="a", text="b"),), ()).recall == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "none",
        "null",
        "[1]",
        "[{]",
        '["Rome"]',
        '{"place": "Rome"}',
        '{"place": [1]}',
        '{"place":\n["Rome"]}',
        '[{"type": "place"}]',
        "[" * 9999,
    ],
)
def test_an_answer_that_is_no_list_of_entities_earns_nothing(answer: str) -> None:
    judged = score(Task.ENTITIES, [answer], ["{}"])

    assert read_spans(answer) is None
    assert (judged.credit, judged.figures["readable"]) == ((0.0,), 0.0)


def test_a_reference_that_is_no_list_of_entities_is_refused() -> None:
    with pytest.raises(ValueError, match="reference 1 is not a list of entities: 'Rome'"):
        score(Task.ENTITIES, ["{}", "{}"], ["{}", "Rome"])


def test_answers_are_normalised_as_by_squad() -> None:
    assert normalised(" The  Eiffel-Tower, a \n landmark! ") == "eiffeltower landmark"
    assert exact_match("the Eiffel Tower.", "Eiffel tower")
    assert not exact_match("Eiffel", "Eiffel tower")


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("in the year 1889", "1889", 0.5),
        ("1889", "1889", 1.0),
        ("Paris Paris", "Paris", 2 / 3),
        ("The", "a", 1.0),
        ("", "Paris", 0.0),
        ("London", "Paris", 0.0),
    ],
)
def test_token_f1_is_that_of_squad(answer: str, reference: str, expected: float) -> None:
    assert token_f1(answer, reference) == pytest.approx(expected)


def test_question_answering_reports_exact_match_and_f1() -> None:
    judged = score(Task.QUESTION_ANSWERING, ["in 1889", "Rome"], ["1889", "Rome"])

    assert judged.figures == pytest.approx({"exact_match": 0.5, "token_f1": (2 / 3 + 1) / 2})


def test_words_are_found_whole() -> None:
    assert contains("It is Paris, of course.", "paris")
    assert not contains("Parisian", "Paris")


@pytest.mark.parametrize(
    ("answer", "valid", "credit"),
    [
        ('{"label":"a","count":2,"note":"the pump is broken again"}', True, (1.0, 1.0, 1.0)),
        ('{"count":2,"label":"b","note":"the pump is broken again"}', True, (0.0, 1.0, 1.0)),
        ('{"label":"a","count":true,"note":"pump broken"}', True, (1.0, 0.0, 2 / 3)),
        ('{"label":"a","count":2}', False, (0.0, 0.0, 0.0)),
        ('{"label":"a","label":"a","count":2,"note":"x"}', False, (0.0, 0.0, 0.0)),
        ('```json\n{"label":"a","count":2,"note":"x"}\n```', False, (0.0, 0.0, 0.0)),
        ("Sure!", False, (0.0, 0.0, 0.0)),
        ("{" * 5000, False, (0.0, 0.0, 0.0)),
    ],
)
def test_fields_earn_credit_only_in_the_right_format(
    answer: str, valid: bool, credit: tuple[float, ...]
) -> None:
    reference = '{"label":"a","count":2,"note":"the pump is broken again"}'

    judged = judge(answer, reference)

    assert judged.valid == valid
    assert tuple(judged.credit[name] for name in ("label", "count", "note")) == pytest.approx(
        credit, abs=0.06
    )


def test_an_instruction_without_json_is_one_field() -> None:
    judged = score(Task.INSTRUCTION, ["DONE", " "], ["DONE", "DONE"])

    assert judged.figures == {"field_accuracy": 0.5, "format_validity": 0.5}


def test_instruction_following_reports_each_field() -> None:
    judged = score(Task.INSTRUCTION, ['{"a":1,"b":2}', "no"], ['{"a":1,"b":3}', '{"a":1,"b":2}'])

    assert judged.figures == {"field_accuracy": 0.25, "format_validity": 0.5, "field:a": 0.5, "field:b": 0.0}


REFERENCES = {
    Task.CLASSIFICATION: ["billing", "delivery", "billing", "account", "billing", "account"],
    Task.ENTITIES: ['{"person":["Ada"]}', "{}", '[{"type":"place","text":"Rome"}]'],
    Task.QUESTION_ANSWERING: ["in 1889", "Gustave Eiffel", "Paris"],
    Task.GENERATION: ["A mug for the small hours.", "It holds what you need.", "Fired twice, used daily."],
    Task.INSTRUCTION: ['{"a":1}', '{"a":"some free text here"}', '{"a":[1,2]}'],
}


@pytest.mark.parametrize("task", Task)
def test_the_right_answers_score_one_in_every_figure(task: Task) -> None:
    judged = score(task, REFERENCES[task], REFERENCES[task])

    assert set(judged.figures.values()) == {1.0}
    assert set(judged.credit) == {1.0}
    assert judged.headline == judged.figures[headline_figure(task)] == 1.0


@pytest.mark.parametrize("task", Task)
def test_blank_answers_score_zero_in_every_figure(task: Task) -> None:
    judged = score(task, ["", " ", "\n"], REFERENCES[task][-3:])

    assert set(judged.figures.values()) == {0.0}
    assert set(judged.credit) == {0.0}


@pytest.mark.parametrize("num_answers", [0, 2, 4])
def test_answers_that_do_not_match_the_references_in_number_are_refused(num_answers: int) -> None:
    with pytest.raises(ValueError, match=f"got {num_answers} and 3"):
        score(Task.GENERATION, ["x"] * num_answers, ["x"] * 3)


def test_what_rows_teach_is_seen_from_them() -> None:
    for task, references in REFERENCES.items():
        prompts = [
            f"The tower in Paris was built in 1889 by Gustave Eiffel. {i}" for i in range(len(references))
        ]
        assert infer_task(prompts, references) == task


def test_labels_are_the_different_answers_by_name() -> None:
    assert labels_of(["b", " a ", "b"]) == ("a", "b")
