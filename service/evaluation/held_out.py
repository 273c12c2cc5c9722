"""Which rows an evaluation asks: those that training set aside, or a dataset of its own without seen prompts.

Reads files line by line, several times: a dataset may be larger than the memory. Blocks; meant for a thread.
Knows nothing of models, engines or the registry.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from service.evaluation.passages import Passages
from trainer.records import (
    AnyRecord,
    LineProblem,
    PreferenceRecord,
    Record,
    RecordsError,
    TextRecord,
    Turn,
    iter_file,
)
from trainer.rendering import Renderer
from trainer.rows import Row, load_rows, split_validation
from trainer.scoring import Task, infer_task, labels_of

MAX_LABELS = 128
"""A constrained answer is compiled into a grammar with a branch for each label."""
_INFERRED_FROM = 500
"""Rows that are looked at to tell what a dataset teaches."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A row to ask."""

    line: int
    """In its file, from 1."""
    prompt: tuple[Turn, ...]
    """All that stands before the last answer."""
    expected: str
    """The last answer; of preferences the wanted one."""
    pair: PreferenceRecord | None = None
    """Of preferences: both answers, whole."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Part of a plain text, which asks nothing: only how probable it is can be told."""

    token_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What to ask, and what is known about it."""

    questions: tuple[Question, ...]
    pieces: tuple[Piece, ...] = ()
    """Of plain texts, which have no questions."""
    available: int
    """Rows held out, of which those here are a part chosen by the seed."""
    seen: int
    """Held-out rows that were left out because training had seen their prompt."""
    task: Task
    labels: tuple[str, ...]
    """Of a classification: those of the training rows too. Empty for other tasks."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training on a file, of which it set a part aside."""

    path: Path
    validation_fraction: float
    seed: int
    plain_text: bool = False
    max_length: int = 2048
    """Tokens that texts were cut to."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where rows come from."""

    trainings: tuple[Training, ...]
    """The version's own, then those of the versions that it started from, one of another. Empty where nothing
    is known of them, which needs an `other_path`."""
    other_path: Path | None = None
    """A dataset of its own; None means what the validation split sets aside."""
    task: Task | None = None
    """None: told from the rows."""
    plain_text: bool = False
    """Whether the rows to ask are texts; then they are cut as the version's own training cuts them."""
    max_length: int = 2048
    """Tokens that texts are cut to, where no training says it."""

    @property
    def seed(self) -> int:
        """Chooses the rows to ask: of a dataset of its own the same ones whoever is asked, where training saw
        none of them."""
        return self.trainings[0].seed if self.other_path is None else 0


def rows_digest(asked: Sequence[Question | Piece]) -> str:
    """Tells whether two evaluations asked the same rows, in whatever order; hexadecimal."""
    parts = [
        f"piece {each.token_ids}" if isinstance(each, Piece) else f"{_digest(each).hex()} {each.expected}"
        for each in asked
    ]
    return hashlib.sha256("\0".join(sorted(parts)).encode()).hexdigest()


def held_out(source: Source, limit: int, renderer: Renderer) -> HeldOut:
    """At most `limit` rows, the same ones for the same files and seed.

    Raises OSError, RecordsError, and DataError for a text that cannot be rendered.
    """
    return _pieces(source, limit, renderer) if source.plain_text else _asked(source, limit)


def _pieces(source: Source, limit: int, renderer: Renderer) -> HeldOut:
    rows: Sequence[Row]
    if source.other_path is None:
        own = source.trainings[0]
        trained, rows = split_validation(
            load_rows(own.path, renderer, max_length=own.max_length), own.validation_fraction, own.seed
        )
        before = _trained_pieces(source.trainings[1:], renderer)
        trained_on = Passages(chain((row.token_ids for row in trained), before))
    else:
        cut = source.trainings[0].max_length if source.trainings else source.max_length
        rows = load_rows(source.other_path, renderer, max_length=cut)
        trained_on = Passages(_trained_pieces(source.trainings, renderer))
    unseen = [row for row in rows if not trained_on.mostly_in(row.token_ids)]
    chosen = random.Random(f"evaluation {source.seed}").sample(unseen, min(limit, len(unseen)))
    return HeldOut(
        questions=(),
        pieces=tuple(Piece(token_ids=row.token_ids) for row in chosen),
        available=len(rows),
        seen=len(rows) - len(unseen),
        task=Task.GENERATION,
        labels=(),
    )


def _trained_pieces(trainings: Sequence[Training], renderer: Renderer) -> Iterator[Sequence[int]]:
    for training in trainings:
        if training.plain_text:
            rows = load_rows(training.path, renderer, max_length=training.max_length)
            trained, _ = split_validation(rows, training.validation_fraction, training.seed)
            yield from (row.token_ids for row in trained)


def _asked(source: Source, limit: int) -> HeldOut:
    path = source.other_path or source.trainings[0].path
    digests = [_digest(question) for question in _questions(path)]
    candidates: Sequence[int] = range(len(digests))
    if source.other_path is None:
        own = source.trainings[0]
        _, candidates = split_validation(candidates, own.validation_fraction, own.seed)
    trained_on = _trained_prompts(source.trainings)
    unseen = [index for index in candidates if digests[index] not in trained_on]
    chosen = set(random.Random(f"evaluation {source.seed}").sample(unseen, min(limit, len(unseen))))
    questions = tuple(question for index, question in enumerate(_questions(path)) if index in chosen)
    known = [question for own in source.trainings[:1] for question in _first(own.path, _INFERRED_FROM)]
    examples = [*known, *questions]
    task = source.task or infer_task(
        [_text(one.prompt) for one in examples], [one.expected for one in examples]
    )
    return HeldOut(
        questions=questions,
        available=len(candidates),
        seen=len(candidates) - len(unseen),
        task=task,
        labels=_labels(examples) if task is Task.CLASSIFICATION else (),
    )


def _trained_prompts(trainings: Sequence[Training]) -> set[bytes]:
    found: set[bytes] = set()
    for training in trainings:
        digests = [_digest(question) for question in _questions(training.path)]
        trained, _ = split_validation(digests, training.validation_fraction, training.seed)
        found.update(trained)
    return found


def _labels(examples: Sequence[Question]) -> tuple[str, ...]:
    labels = labels_of([example.expected for example in examples])
    return labels if len(labels) <= MAX_LABELS else ()


def _questions(path: Path) -> Iterator[Question]:
    """The file's rows in order."""
    for found in iter_file(path):
        if isinstance(found, LineProblem):
            raise RecordsError((found,), 1)
        yield _question(found)


def _question(record: AnyRecord) -> Question:
    pair: PreferenceRecord | None = None
    match record:
        case Record():
            # What follows the last trained answer is not what the row teaches.
            last = max(index for index, turn in enumerate(record.messages) if turn.trained)
            *prompt, answer = record.messages[: last + 1]
        case PreferenceRecord():
            *prompt, answer = [*record.prompt, *record.chosen]
            pair = record
        case TextRecord():  # training on texts, asked about conversations
            prompt, answer = [], Turn(role="assistant", content=record.text)
    return Question(line=record.line, prompt=tuple(prompt), expected=answer.content, pair=pair)


def _first(path: Path, limit: int) -> Iterator[Question]:
    yield from islice(_questions(path), limit)


def _digest(question: Question) -> bytes:
    """Eight bytes that tell prompts apart; those of a million rows fit into the memory."""
    text = "\0".join(f"{turn.role}\0{turn.content}" for turn in question.prompt) or question.expected
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _text(prompt: Sequence[Turn]) -> str:
    return "\n".join(turn.content for turn in prompt)
