"""Hyperparameters that nobody chose: each with the reason for it.

They follow the number of rows, the technique and the size of the base. The same function fills in what a
request leaves out and what a plan shows, so that the two cannot differ. Standard library only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from trainer.config import LEARNING_RATES, PREFERENCE_RATE, SETTINGS_OF, Hyperparameters, Objective, Technique
from trainer.planning.duration import Data

FEW_ROWS = 1_000
"""Below this a model learns its rows by heart sooner than what they have in common."""
MANY_ROWS = 10_000
"""Above this there is enough to move every weight by."""
LARGE_BASE = 20_000_000_000
"""Parameters from which half the learning rate is usual (Dettmers et al. 2023, table 9)."""
MAX_SEQUENCE_LENGTH = 2048
"""Tokens, where no row asks for more."""
ALPHA_PER_RANK = 2.0

_RATE_REASONS: Mapping[Technique, str] = {
    Technique.LORA: "the middle of LoRA's usual 1e-4 to 3e-4",
    Technique.QLORA: "the middle of LoRA's usual 1e-4 to 3e-4",
    Technique.PROMPT_TUNING: "within the 1e-3 to 1e-2 that virtual tokens need, being so few",
    Technique.FULL: "within the usual 1e-5 to 5e-5: larger steps undo what the model knows",
}


class Amount(Enum):
    """How much there is to learn from."""

    FEW = "few"
    ENOUGH = "enough"
    MANY = "many"

    @classmethod
    def of(cls, rows: int) -> "Amount":
        """The side of the two bounds on which so many rows are."""
        if rows < FEW_ROWS:
            return cls.FEW
        return cls.MANY if rows > MANY_ROWS else cls.ENOUGH


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A setting, and why."""

    field: str
    """Of `Hyperparameters`."""
    value: float
    reason: str


def choose(
    technique: Technique,
    data: Data,
    *,
    parameters: int,
    context_length: int,
    max_rank: int,
) -> tuple[Choice, ...]:
    """What to train on `data` with. `parameters` are the base's, `max_rank` the engine's limit.

    Settings of low-rank matrices are left out for techniques without any.
    """
    length = _max_sequence_length(data, context_length)
    rows = data.in_pieces(int(length.value)).rows
    amount = Amount.of(rows)
    chosen = [_learning_rate(technique, data.objective, parameters), *_by_amount(amount, rows)]
    if technique in SETTINGS_OF["rank"]:
        chosen.extend(_low_rank(amount, rows, max_rank))
    chosen.append(length)
    chosen.append(
        Choice(
            field="warmup_ratio",
            value=0.05,
            reason="AdamW's moments are guesses in the first steps, which are kept small",
        )
    )
    return tuple(chosen)


def complete(choices: Sequence[Choice], given: Mapping[str, object]) -> Hyperparameters:
    """Settings of a run: what was `given`, then the choices, then what needs none.

    Where a rank is given and no alpha, alpha stays twice the rank.
    """
    whole = {name for name, kind in Hyperparameters.__annotations__.items() if kind is int}
    chosen: dict[str, Any] = {
        choice.field: int(choice.value) if choice.field in whole else float(choice.value)
        for choice in choices
    }
    if "alpha" in chosen and isinstance(rank := given.get("rank"), int):
        chosen["alpha"] = ALPHA_PER_RANK * rank
    return Hyperparameters(**{**chosen, **given})


def _learning_rate(technique: Technique, objective: Objective, parameters: int) -> Choice:
    rate, reason = LEARNING_RATES[technique], _RATE_REASONS[technique]
    if parameters >= LARGE_BASE:
        rate, reason = rate / 2, f"half of {rate:g}, as usual for bases this large"
    if objective is Objective.PREFERENCE:
        rate, reason = (
            rate * PREFERENCE_RATE,
            (f"{PREFERENCE_RATE:g} of {rate:g}: preferences move a model that can already answer"),
        )
    return Choice(field="learning_rate", value=rate, reason=reason)


def _max_sequence_length(data: Data, context_length: int) -> Choice:
    length = min(MAX_SEQUENCE_LENGTH, context_length)
    if length < data.longest_row <= context_length and not data.is_cut:
        return Choice(
            field="max_sequence_length",
            value=data.longest_row,
            reason=f"the longest row, which would be refused by the usual {length:,}",
        )
    return Choice(
        field="max_sequence_length",
        value=length,
        reason=f"rows may be this long; the base's context is {context_length:,} tokens",
    )


def _by_amount(amount: Amount, rows: int) -> tuple[Choice, ...]:
    match amount:
        case Amount.FEW:
            why = f"{rows:,} rows are under {FEW_ROWS:,}, which are soon learned by heart"
            epochs, decay, aside, batch = 3, 0.05, 0.1, 8
            passes = f"few passes: {why}"
            decayed = f"stronger than the usual 0.01: {why}"
        case Amount.ENOUGH:
            epochs, decay, aside, batch = 4, 0.01, 0.1, 8
            passes = f"between 3 and 10 are usual; {rows:,} rows bear a few"
            decayed = "AdamW's usual one"
        case Amount.MANY:
            epochs, decay, aside, batch = 3, 0.01, 0.05, 16
            passes = f"{rows:,} rows make many steps in each pass"
            decayed = "AdamW's usual one"
    return (
        Choice(field="epochs", value=epochs, reason=passes),
        Choice(
            field="batch_size",
            value=batch,
            reason="small, for many steps out of few rows"
            if amount is Amount.FEW
            else "8 to 16 rows a step learn fastest a row; memory does not grow with it",
        ),
        Choice(field="weight_decay", value=decay, reason=decayed),
        Choice(
            field="validation_fraction",
            value=aside,
            reason="to see overfitting, which training loss does not show"
            if amount is not Amount.MANY
            else f"of {rows:,} rows a twentieth is enough to see overfitting",
        ),
    )


def _low_rank(amount: Amount, rows: int, max_rank: int) -> tuple[Choice, ...]:
    rank, dropout, why = {
        Amount.FEW: (8, 0.1, f"{rows:,} rows under {FEW_ROWS:,} risk overfitting"),
        Amount.ENOUGH: (16, 0.05, f"{rows:,} rows are in the sweet spot"),
        Amount.MANY: (32, 0.05, f"{rows:,} rows above {MANY_ROWS:,} have more to tell"),
    }[amount]
    if rank > max_rank:
        rank, limit = max_rank, f"; the engine serves up to {max_rank}"
    else:
        limit = ""
    size = {Amount.FEW: "fewer weights", Amount.ENOUGH: "the usual size", Amount.MANY: "more weights"}[amount]
    return (
        Choice(field="rank", value=rank, reason=f"{size}: {why}{limit}"),
        Choice(
            field="alpha",
            value=ALPHA_PER_RANK * rank,
            reason="twice the rank, so that the learning rate means the same at every rank",
        ),
        Choice(
            field="dropout",
            value=dropout,
            reason=f"{'stronger than the usual 0.05' if amount is Amount.FEW else 'the usual one'}: {why}",
        ),
    )
