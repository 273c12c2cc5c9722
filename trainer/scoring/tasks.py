"""One way to score the answers of each of the five uses of a tuned model."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trainer.config import Task
from trainer.scoring import answers as qa
from trainer.scoring import classification, entities, fields, generation
from trainer.scoring.classification import Confusion

HEADLINES: Mapping[Task, str] = {
    Task.CLASSIFICATION: "accuracy",
    Task.ENTITIES: "f1",
    Task.QUESTION_ANSWERING: "token_f1",
    Task.GENERATION: "chrf",
    Task.INSTRUCTION: "field_accuracy",
}
"""The one figure that stands for all, where only one can."""

MAX_LABELS = 64
"""With more different answers than this a dataset is not taken for a classification by itself."""
_LABEL_WORDS = 4
_ANSWER_WORDS = 12
_MOST = 0.9
"""Part of the rows that must look like a task; a few odd rows do not change what a dataset is."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """How good some answers are."""

    task: Task
    figures: Mapping[str, float]
    """0..1, higher is better. In the order in which they are shown."""
    credit: tuple[float, ...]
    """For each answer 0..1; comparing two models row by row goes by this. 1 means entirely right."""
    confusion: Confusion | None = None
    """Only of classifications."""

    @property
    def headline(self) -> float:
        """The figure that stands for all."""
        return self.figures[HEADLINES[self.task]]


def headline_figure(task: Task) -> str:
    """Name of the figure that stands for all."""
    return HEADLINES[task]


def score(task: Task, answers: Sequence[str], references: Sequence[str], labels: Sequence[str] = ()) -> Score:
    """Judge `answers[i]` against `references[i]`.

    `labels` are those of a classification; those of the references count in any case. Raises ValueError where
    the two differ in length or are empty.
    """
    if len(answers) != len(references) or not answers:
        raise ValueError(
            f"need one answer for each reference and at least one, got {len(answers)} and {len(references)}"
        )
    return _SCORERS[task](answers, references, labels)


def labels_of(references: Sequence[str]) -> tuple[str, ...]:
    """The different labels, by name."""
    return tuple(sorted({reference.strip() for reference in references}))


def infer_task(prompts: Sequence[str], references: Sequence[str]) -> Task:
    """What rows seem to teach. `prompts[i]` is all that stands before `references[i]`.

    A rule of thumb, to be overruled by whoever knows. JSON says entities or instruction; few, short, repeated
    answers say classification; short answers that stand in their prompts say question answering; anything
    else is generation.
    """
    spans = [entities.read_spans(reference) for reference in references]
    if _mostly([each is not None for each in spans]) and any(spans):
        return Task.ENTITIES
    if _mostly([fields.read_object(reference) is not None for reference in references]):
        return Task.INSTRUCTION
    words = [len(reference.split()) for reference in references]
    different = len(labels_of(references))
    if max(words, default=0) <= _LABEL_WORDS and different <= min(MAX_LABELS, len(references) // 2):
        return Task.CLASSIFICATION
    quoted = [
        count <= _ANSWER_WORDS and qa.contains(prompt, reference)
        for count, prompt, reference in zip(words, prompts, references, strict=True)
    ]
    return Task.QUESTION_ANSWERING if _mostly(quoted) else Task.GENERATION


def _mostly(flags: Sequence[bool]) -> bool:
    return bool(flags) and sum(flags) >= _MOST * len(flags)


def _classification(answers: Sequence[str], references: Sequence[str], labels: Sequence[str]) -> Score:
    known = labels_of([*references, *labels])
    given = [classification.given_label(answer, known) for answer in answers]
    right = [reference.strip() for reference in references]
    return Score(
        task=Task.CLASSIFICATION,
        figures={
            "accuracy": classification.accuracy(given, right),
            "macro_f1": classification.macro_f1(given, right),
            "labelled": sum(label != classification.NO_LABEL for label in given) / len(given),
        },
        credit=tuple(float(one == other) for one, other in zip(given, right, strict=True)),
        confusion=classification.confusion(given, right, known),
    )


def _entities(answers: Sequence[str], references: Sequence[str], labels: Sequence[str]) -> Score:
    readings = [entities.read_spans(answer) for answer in answers]
    counts = []
    for number, (reading, reference) in enumerate(zip(readings, references, strict=True)):
        wanted = entities.read_spans(reference)
        if wanted is None:
            raise ValueError(f"reference {number} is not a list of entities: {reference[:60]!r}")
        counts.append(entities.count(reading or (), wanted))
    whole = entities.total(counts)
    return Score(
        task=Task.ENTITIES,
        figures={
            "f1": whole.f1,
            "precision": whole.precision,
            "recall": whole.recall,
            "readable": sum(reading is not None for reading in readings) / len(readings),
        },
        credit=tuple(
            0.0 if reading is None else each.f1 for reading, each in zip(readings, counts, strict=True)
        ),
    )


def _question_answering(answers: Sequence[str], references: Sequence[str], labels: Sequence[str]) -> Score:
    pairs = list(zip(answers, references, strict=True))
    credit = tuple(qa.token_f1(answer, reference) for answer, reference in pairs)
    exact = sum(qa.exact_match(answer, reference) for answer, reference in pairs)
    return Score(
        task=Task.QUESTION_ANSWERING,
        figures={"exact_match": exact / len(pairs), "token_f1": sum(credit) / len(credit)},
        credit=credit,
    )


def _generation(answers: Sequence[str], references: Sequence[str], labels: Sequence[str]) -> Score:
    pairs = list(zip(answers, references, strict=True))
    counts = [generation.character_counts(answer, reference) for answer, reference in pairs]
    rouge = [generation.rouge_l(answer, reference) for answer, reference in pairs]
    return Score(
        task=Task.GENERATION,
        figures={"chrf": generation.chrf(counts), "rouge_l": sum(rouge) / len(rouge)},
        credit=tuple(generation.chrf([each]) for each in counts),
    )


def _instruction(answers: Sequence[str], references: Sequence[str], labels: Sequence[str]) -> Score:
    scores = [fields.judge(answer, reference) for answer, reference in zip(answers, references, strict=True)]
    credits = [credit for each in scores for credit in each.credit.items()]
    figures = {
        "field_accuracy": sum(each.mean for each in scores) / len(scores),
        "format_validity": sum(each.valid for each in scores) / len(scores),
    }
    occurrences = Counter(name for name, _ in credits if name != fields.WHOLE_ANSWER)
    for name, number in occurrences.items():
        if number >= _MOST * len(scores):  # rows of many shapes would make a table of odd keys
            figures[f"field:{name}"] = sum(credit for other, credit in credits if other == name) / number
    return Score(task=Task.INSTRUCTION, figures=figures, credit=tuple(each.mean for each in scores))


_SCORERS: Mapping[Task, Callable[[Sequence[str], Sequence[str], Sequence[str]], Score]] = {
    Task.CLASSIFICATION: _classification,
    Task.ENTITIES: _entities,
    Task.QUESTION_ANSWERING: _question_answering,
    Task.GENERATION: _generation,
    Task.INSTRUCTION: _instruction,
}
