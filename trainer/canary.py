"""The canary: a few fixed token sequences and the log-probabilities that base and adapted model give them.

Whoever serves the adapter measures the same and compares. So the weights here are exactly those that are
published and served (16-bit base, adapter rounded as in its file), whatever the training used. It does not
know engines or tolerances.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from trainer.forward import RowLoss
from trainer.rows import Row

MAX_SEQUENCES = 4
MAX_TOKENS = 64
"""Per sequence: proving an adapter costs the engine a prompt of this size, before every activation."""


@dataclass(frozen=True, kw_only=True)
class CanarySequence:
    """`..._logprobs[i]` is that of `token_ids[i + 1]` given the tokens up to `i`, in nats."""

    token_ids: tuple[int, ...]
    base_logprobs: tuple[float, ...]
    adapter_logprobs: tuple[float, ...]
    quantised_logprobs: tuple[float, ...] | None = None
    """Those of the adapter on the 4-bit base that it was trained on; None where there was none."""


def choose_sequences(rows: Sequence[Row]) -> list[tuple[int, ...]]:
    """Up to four different stretches of training rows, each ending with the last token that carries loss.

    The shortest rows come first, since they fit whole and show the adapter in the context it was trained for.
    """
    chosen: list[tuple[int, ...]] = []
    for row in sorted(rows, key=lambda row: len(row.token_ids)):
        stretch = stretch_of(row.token_ids, row.trained)
        if stretch not in chosen:
            chosen.append(stretch)
        if len(chosen) == MAX_SEQUENCES:
            break
    return chosen


def stretch_of(token_ids: Sequence[int], trained: Sequence[bool]) -> tuple[int, ...]:
    """What of a row a canary takes: it ends with the last token that carries loss."""
    end = max(index for index, flag in enumerate(trained) if flag) + 1
    return tuple(token_ids[max(0, end - MAX_TOKENS) : end])


def measure(
    row_loss: RowLoss,
    sequences: Sequence[tuple[int, ...]],
    between: Callable[[], None],
    quantised: Sequence[tuple[float, ...]] | None = None,
) -> list[CanarySequence]:
    """Run each sequence through base and adapted model; `between` is called before each. `quantised` is what
    `logprobs` measured on a 4-bit base before."""
    adapted = row_loss.adapted
    with adapted.base_alone():
        base = logprobs(row_loss, sequences, between)
    adapted.take_over()
    trained = logprobs(row_loss, sequences, between)
    beside: Sequence[tuple[float, ...] | None] = quantised or [None] * len(sequences)
    return [
        CanarySequence(
            token_ids=token_ids, base_logprobs=before, adapter_logprobs=after, quantised_logprobs=on_quantised
        )
        for token_ids, before, after, on_quantised in zip(sequences, base, trained, beside, strict=True)
    ]


def logprobs(
    row_loss: RowLoss, sequences: Sequence[tuple[int, ...]], between: Callable[[], None]
) -> list[tuple[float, ...]]:
    """Of each token but the first, by the model as it is now."""
    row_loss.adapted.model.eval()
    found = []
    for token_ids in sequences:
        between()
        row = Row(token_ids=token_ids, trained=(False, *[True] * (len(token_ids) - 1)))
        with torch.no_grad():
            found.append(tuple((-row_loss.of_tokens([row])).tolist()))
    return found
