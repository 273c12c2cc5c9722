"""Rows of token ids out of a dataset: rendered, split for validation, and put in the order of training.

Everything random here follows from the seed and a row's or an epoch's number alone, so that a resumed run
needs no saved state to see the same rows in the same order. It does not know tensors.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar

from trainer.config import Objective
from trainer.pacing import validation_count
from trainer.records import PreferenceRecord, TextRecord, read_file
from trainer.rendering import Renderer, RenderingError, TrainingRow

RowT = TypeVar("RowT")


class DataError(Exception):
    """The dataset cannot be trained on; the text names the line and the rule."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One conversation, or a piece of a text, as the model sees it."""

    token_ids: tuple[int, ...]
    trained: tuple[bool, ...]
    """For each token whether predicting it carries loss. Never true for the first: nothing predicts it."""

    @property
    def trained_tokens(self) -> int:
        """How many tokens carry loss."""
        return sum(self.trained)

    @property
    def prompt(self) -> tuple[int, ...]:
        """What stands before the last stretch that carries loss; of a piece of a text, its first token."""
        begin = max(index for index, flag in enumerate(self.trained) if flag)
        while begin and self.trained[begin - 1]:
            begin -= 1
        return self.token_ids[:begin]

    @property
    def rows(self) -> tuple["Row"]:
        """Itself."""
        return (self,)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A prompt with the answer that is wanted, and with one that is not; each a row."""

    chosen: Row
    rejected: Row

    @property
    def rows(self) -> tuple[Row, Row]:
        """Chosen and rejected."""
        return (self.chosen, self.rejected)


Example = Row | Pair
"""What a step counts, shuffles and sets aside: one line of a dataset, or one piece of a text."""


def _nothing() -> None:
    """Between records, where nobody waits."""


def load_rows(
    path: Path, renderer: Renderer, *, max_length: int, between: Callable[[], None] = _nothing
) -> list[Row]:
    """Every row of the dataset, in file order. A text longer than `max_length` tokens becomes several rows.

    `between` is called before each record: a large dataset takes minutes. Raises DataError for a conversation
    that is longer than `max_length` tokens, for a row that trains nothing, and for preferences, which make
    pairs; RecordsError for lines that are not records; OSError.
    """
    rows: list[Row] = []
    for record in read_file(path):
        between()
        try:
            match record:
                case PreferenceRecord():
                    raise DataError(f"line {record.line} is a preference, which has no row of its own")
                case TextRecord():
                    rendered = renderer.text_row(record.text)
                    rows.extend(_pieces(rendered, max_length))
                    continue
                case _:
                    rendered = renderer.training_row(record.messages)
        except RenderingError as error:
            raise DataError(f"line {record.line}: {error}") from error
        rows.append(_row(rendered, record.line, max_length))
    return rows


def load_pairs(
    path: Path, renderer: Renderer, *, max_length: int, between: Callable[[], None] = _nothing
) -> list[Pair]:
    """Every preference of the dataset, in file order.

    `between` and errors are as in `load_rows`, but for what is no preference.
    """
    pairs = []
    for record in read_file(path):
        between()
        if not isinstance(record, PreferenceRecord):
            raise DataError(f"line {record.line} is no preference")
        try:
            rendered = renderer.preference_pair(record.prompt, record.chosen, record.rejected)
        except RenderingError as error:
            raise DataError(f"line {record.line}: {error}") from error
        pairs.append(
            Pair(
                chosen=_row(rendered.chosen, record.line, max_length),
                rejected=_row(rendered.rejected, record.line, max_length),
            )
        )
    return pairs


def load_examples(
    path: Path,
    renderer: Renderer,
    *,
    max_length: int,
    objective: Objective,
    between: Callable[[], None] = _nothing,
) -> Sequence[Example]:
    """What the objective trains on, as `load_rows` and `load_pairs` give it."""
    match objective:
        case Objective.SUPERVISED:
            return load_rows(path, renderer, max_length=max_length, between=between)
        case Objective.PREFERENCE:
            return load_pairs(path, renderer, max_length=max_length, between=between)


def _row(rendered: TrainingRow, line: int, max_length: int) -> Row:
    if len(rendered.token_ids) > max_length:
        raise DataError(f"line {line} is {len(rendered.token_ids)} tokens long; {max_length} are accepted")
    row = Row(token_ids=rendered.token_ids, trained=(False, *rendered.trained[1:]))
    if row.trained_tokens == 0:
        raise DataError(f"line {line} has no tokens to train on")
    return row


def _pieces(rendered: TrainingRow, max_length: int) -> Iterator[Row]:
    """A text in rows of at most `max_length` tokens, at least 2.

    Each begins with the last token of the one before, so that every token but the first is predicted once.
    """
    last = len(rendered.token_ids) - 1
    for begin in range(0, last, max_length - 1):
        token_ids = rendered.token_ids[begin : begin + max_length]
        yield Row(token_ids=token_ids, trained=(False, *[True] * (len(token_ids) - 1)))


def split_validation(rows: Sequence[RowT], fraction: float, seed: int) -> tuple[list[RowT], list[RowT]]:
    """Rows to train on and rows set aside, both in file order.

    At least one row is set aside where `fraction` is above 0 and there are two rows or more; one always
    trains.
    """
    aside = validation_indices(len(rows), fraction, seed)
    training = [row for index, row in enumerate(rows) if index not in aside]
    return training, [rows[index] for index in sorted(aside)]


def validation_indices(num_rows: int, fraction: float, seed: int) -> set[int]:
    """Which of so many rows `split_validation` sets aside."""
    count = validation_count(num_rows, fraction)
    return set(random.Random(f"validation {seed}").sample(range(num_rows), count))


def leaked_rows(training: Sequence[Example], aside: Sequence[Example]) -> int:
    """How many of the rows set `aside` have the prompt of one to train on; of texts, are one once more."""
    trained = {_asked(example) for example in training}
    return sum(_asked(example) in trained for example in aside)


def _asked(example: Example) -> tuple[int, ...]:
    row = example.rows[0]
    prompt = row.prompt
    return prompt if len(prompt) > 1 else row.token_ids


@dataclass(frozen=True, kw_only=True)
class StepOrder(Generic[RowT]):
    """Which rows each optimizer step sees: every epoch its own permutation, cut into batches."""

    rows: Sequence[RowT]
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass; the last one of a pass may have fewer rows."""
        return math.ceil(len(self.rows) / self.batch_size)

    def rows_of_step(self, step: int) -> list[RowT]:
        """The rows of a step, counted from 0."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        order = _order_of_epoch(len(self.rows), self.seed, epoch)
        begin = batch * self.batch_size
        return [self.rows[index] for index in order[begin : begin + self.batch_size]]


@lru_cache(maxsize=1)  # a large epoch takes longer to shuffle than a small step to train
def _order_of_epoch(num_rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(num_rows))
    random.Random(f"epoch {seed} {epoch}").shuffle(order)
    return tuple(order)
