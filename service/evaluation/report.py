"""What came out of an evaluation: figures, tables, wins and losses, out of answers alone.

Pure. Meanings stand at EvaluationReport in the proto. Knows nothing of engines, files or the registry.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from service.evaluation.general_skill import ITEMS, Item
from service.evaluation.held_out import HeldOut, Piece, Question, rows_digest
from trainer.scoring import Score, Task, headline_figure, score

EXAMPLES_OF_A_KIND = 8
SHOWN_CHARACTERS = 2000
RIGHT_CREDIT = 0.5
"""From this credit on an answer counts as right where only right and wrong are told apart."""
_LINE_OF_GENERAL_SKILL = 0


class Kind(StrEnum):
    """What an example shows."""

    WIN = "WIN"
    LOSS = "LOSS"
    REGRESSION = "REGRESSION"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of both models."""

    name: str
    base: float
    adapter: float
    higher_is_better: bool = True
    constrained: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A confusion table."""

    adapter: bool
    constrained: bool
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Example:
    """A row that both models answered."""

    kind: Kind
    line: int
    prompt: str
    expected: str
    base_answer: str
    adapter_answer: str
    base_credit: float
    adapter_credit: float


@dataclass(frozen=True, kw_only=True)
class GeneralSkill:
    """Result of the general-skill set."""

    items: int
    base_right: int
    adapter_right: int
    forgotten: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole of it."""

    summary: str
    task: Task
    rows: int
    held_out_rows: int
    seen_rows: int
    refused_rows: int
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]
    wins: int
    losses: int
    ties: int
    regressions: int
    examples: tuple[Example, ...]
    general_skill: GeneralSkill
    rows_digest: str = ""
    """Of the rows that were asked; see `held_out.rows_digest`. Empty in what earlier releases recorded."""

    def encode(self) -> str:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def decode(cls, text: str) -> "Report":
        """What `encode` wrote."""
        fields: dict[str, Any] = json.loads(text)
        for name, kind in (("figures", Figure), ("tables", _table), ("examples", _example)):
            fields[name] = tuple(kind(**each) for each in fields[name])
        fields["task"] = Task(fields["task"])
        fields["general_skill"] = GeneralSkill(**fields["general_skill"])
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one model said; all lists in the same order of questions."""

    free: tuple[str, ...]
    constrained: tuple[str, ...]
    """Empty where there is nothing to constrain to."""
    logprobs: tuple[tuple[float, int], ...]
    """Sum of the expected answers' log-probabilities (nats) and their tokens; empty where not measured."""
    rejected_logprobs: tuple[tuple[float, int], ...]
    """Of preferences: the same of the answers that are not wanted."""
    general: tuple[str, ...]


def make_report(
    held: HeldOut, asked: Sequence[Question | Piece], base: Answers, adapter: Answers, refused: int
) -> Report:
    """`asked` are those that both models answered, `refused` counts the others."""
    questions = [each for each in asked if isinstance(each, Question)]
    expected = [question.expected for question in questions]

    def judged(answers: Sequence[str]) -> Score:
        return score(held.task, answers, expected, held.labels)

    figures: list[Figure] = []
    tables: list[Table] = []
    examples: list[Example] = []
    credits: tuple[tuple[float, float], ...] = ()
    if base.rejected_logprobs:
        figures += _preferences(_margins(base), _margins(adapter))
    if questions:
        pair = judged(base.free), judged(adapter.free)
        figures += _figures(*pair, constrained=False)
        tables += _tables(*pair, constrained=False)
        credits = tuple(zip(pair[0].credit, pair[1].credit, strict=True))
        examples = [
            _compared(question.line, question.prompt[-1].content, question.expected, *answers, *credit)
            for question, answers, credit in zip(
                questions, zip(base.free, adapter.free, strict=True), credits, strict=True
            )
        ]
        if base.constrained:
            pair = judged(base.constrained), judged(adapter.constrained)
            figures += _figures(*pair, constrained=True)
            tables += _tables(*pair, constrained=True)
    if base.logprobs:
        figures.append(
            Figure(
                name="perplexity",
                base=_perplexity(base.logprobs),
                adapter=_perplexity(adapter.logprobs),
                higher_is_better=False,
            )
        )
    skill, lapses = _general_skill(base.general, adapter.general)
    regressions = sum(example.kind is Kind.REGRESSION for example in examples) + skill.forgotten
    wins = sum(one < other for one, other in credits)
    losses = sum(one > other for one, other in credits)
    rows = len(questions) or len(base.logprobs)
    return Report(
        summary=_summary(rows, held.seen, figures, wins, losses, skill),
        task=held.task,
        rows=rows,
        held_out_rows=held.available,
        seen_rows=held.seen,
        refused_rows=refused,
        figures=tuple(figures),
        tables=tuple(tables),
        wins=wins,
        losses=losses,
        ties=len(credits) - wins - losses,
        regressions=regressions,
        examples=_clearest([example for example in examples if _differs(example)] + lapses),
        general_skill=skill,
        rows_digest=rows_digest(asked),
    )


def _figures(base: Score, adapter: Score, *, constrained: bool) -> list[Figure]:
    names = sorted(base.figures, key=lambda name: name != headline_figure(base.task))
    return [
        Figure(name=name, base=base.figures[name], adapter=adapter.figures[name], constrained=constrained)
        for name in names
    ]


def _margins(answers: Answers) -> list[float]:
    """Nats by which each wanted answer is more probable than the other."""
    pairs = zip(answers.logprobs, answers.rejected_logprobs, strict=True)
    return [wanted - other for (wanted, _), (other, _) in pairs]


def _preferences(base: Sequence[float], adapter: Sequence[float]) -> list[Figure]:
    def figure(name: str, of: Callable[[Sequence[float]], float]) -> Figure:
        return Figure(name=name, base=of(base), adapter=of(adapter))

    return [
        figure("preference_accuracy", lambda margins: sum(each > 0 for each in margins) / len(margins)),
        figure("preference_margin", lambda margins: sum(margins) / len(margins)),
    ]


def _tables(base: Score, adapter: Score, *, constrained: bool) -> list[Table]:
    return [
        Table(
            adapter=of is adapter,
            constrained=constrained,
            labels=of.confusion.labels,
            counts=of.confusion.counts,
        )
        for of in (base, adapter)
        if of.confusion is not None
    ]


def _perplexity(logprobs: Sequence[tuple[float, int]]) -> float:
    """exp of the mean negative log-probability of a token, over all rows together."""
    tokens = sum(count for _, count in logprobs)
    # A probability of zero gives an infinite perplexity; beyond this a float has no room.
    return math.exp(min(-sum(total for total, _ in logprobs) / tokens, 700.0))


def _compared(
    line: int,
    prompt: str,
    expected: str,
    base_answer: str,
    adapter_answer: str,
    base_credit: float,
    adapter_credit: float,
) -> Example:
    kind = Kind.WIN if adapter_credit > base_credit else Kind.LOSS
    if base_credit >= RIGHT_CREDIT > adapter_credit:
        kind = Kind.REGRESSION
    return Example(
        kind=kind,
        line=line,
        prompt=prompt[:SHOWN_CHARACTERS],
        expected=expected[:SHOWN_CHARACTERS],
        base_answer=base_answer[:SHOWN_CHARACTERS],
        adapter_answer=adapter_answer[:SHOWN_CHARACTERS],
        base_credit=base_credit,
        adapter_credit=adapter_credit,
    )


def _differs(example: Example) -> bool:
    return example.base_credit != example.adapter_credit


def _clearest(examples: Sequence[Example]) -> tuple[Example, ...]:
    """Of each kind those that differ most; among equals those that come first."""
    chosen: list[Example] = []
    for kind in Kind:
        of_kind = [example for example in examples if example.kind is kind]
        of_kind.sort(key=lambda example: -abs(example.adapter_credit - example.base_credit))
        chosen += of_kind[:EXAMPLES_OF_A_KIND]
    return tuple(chosen)


def _general_skill(base: Sequence[str], adapter: Sequence[str]) -> tuple[GeneralSkill, list[Example]]:
    right: Callable[[Item, str], float] = lambda item, answer: float(item.is_right(answer))  # noqa: E731
    examples = [
        _compared(
            _LINE_OF_GENERAL_SKILL,
            item.question,
            item.accepted[0],
            one,
            other,
            right(item, one),
            right(item, other),
        )
        for item, one, other in zip(ITEMS, base, adapter, strict=True)
    ]
    lapses = [example for example in examples if example.base_credit > example.adapter_credit]
    return (
        GeneralSkill(
            items=len(examples),
            base_right=sum(example.base_credit == 1 for example in examples),
            adapter_right=sum(example.adapter_credit == 1 for example in examples),
            forgotten=len(lapses),
        ),
        lapses,
    )


def _summary(
    rows: int, seen: int, figures: Sequence[Figure], wins: int, losses: int, skill: GeneralSkill
) -> str:
    general = f"general skill {skill.base_right} to {skill.adapter_right} of {skill.items}"
    if not rows and seen:
        return f"All {seen} rows had been trained on, so only general questions were asked: {general}."
    if not rows:
        return f"No rows were held out, so only general questions were asked: {general}."
    figure = figures[0]
    change = "unchanged at" if figure.base == figure.adapter else f"from {figure.base:.3f} to"
    return (
        f"{figure.name.replace('_', ' ')} {change} {figure.adapter:.3f} on {rows} unseen "
        f"{'row' if rows == 1 else 'rows'} ({wins} better, {losses} worse); {general}."
    )


def _table(**fields: Any) -> Table:
    fields["labels"] = tuple(fields["labels"])
    fields["counts"] = tuple(tuple(row) for row in fields["counts"])
    return Table(**fields)


def _example(**fields: Any) -> Example:
    return Example(**{**fields, "kind": Kind(fields["kind"])})
