"""The canary: a few fixed token sequences and the log-probabilities that base and adapted model give them.

Whoever serves the adapter measures the same and compares. So the weights here are exactly those that are
published and served (16-bit base, adapter rounded as in its file), whatever the training used. It does not
know engines or tolerances.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from peft import PeftModel

from trainer.attention import rows_of
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


def choose_sequences(rows: Sequence[Row]) -> list[tuple[int, ...]]:
    """Up to four different stretches of training rows, each ending with the last token that carries loss.

    The shortest rows come first, since they fit whole and show the adapter in the context it was trained for.
    """
    chosen: list[tuple[int, ...]] = []
    for row in sorted(rows, key=lambda row: len(row.token_ids)):
        end = max(index for index, flag in enumerate(row.trained) if flag) + 1
        stretch = row.token_ids[max(0, end - MAX_TOKENS) : end]
        if stretch not in chosen:
            chosen.append(stretch)
        if len(chosen) == MAX_SEQUENCES:
            break
    return chosen


def measure(
    model: PeftModel, sequences: Sequence[tuple[int, ...]], between: Callable[[], None]
) -> list[CanarySequence]:
    """Run each sequence through base and adapted model; `between` is called before each."""
    model.eval()
    measured = []
    for token_ids in sequences:
        between()
        measured.append(
            CanarySequence(
                token_ids=token_ids,
                base_logprobs=_logprobs(model, token_ids, adapted=False),
                adapter_logprobs=_logprobs(model, token_ids, adapted=True),
            )
        )
    return measured


def _logprobs(model: PeftModel, token_ids: tuple[int, ...], *, adapted: bool) -> tuple[float, ...]:
    ids = torch.tensor([token_ids], device=model.device)
    with (
        torch.inference_mode(),
        rows_of((len(token_ids),)),
        nullcontext() if adapted else model.disable_adapter(),
    ):
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()  # [tokens - 1, vocabulary]
    return tuple(logits.log_softmax(1).gather(1, ids[0, 1:, None])[:, 0].tolist())
