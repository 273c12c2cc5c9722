"""What it takes a run to answer questions for a score, and how often it can afford to.

All work is in tokens that go forward. Standard library only: whoever plans a run counts with this as the
exam will.
"""

import math
from collections.abc import Mapping, Sequence

MAX_QUESTIONS = 48
"""Where the score decides what is better. More would cost more time than the steps between two evaluations
on a CPU."""
BATCH_ROWS = 16
"""Prompts at a time, at most; the cache of keys and values grows with it. So many questions make a score that
decides nothing."""
SHARE = 0.1
"""Of the training's work that scores may take which decide nothing."""
MAX_TOKENS = 128
"""Of an answer; longer references are compared with what fits."""
ROOM = 8
"""Tokens that an answer may be longer than the longest reference: a wrong one need not be told in full."""
_TRAINING_PASSES = 2
"""Training with a token takes as long as so many forward passes, or longer."""
_CACHED_PASSES = 4
"""Tokens at a time, in training passes: the cache of more could need memory that training has not needed."""
_TOKENS_OF_A_PASS: Mapping[str, int] = {"cpu": 64, "cuda": 1024}
"""Decoding reads every weight for one token a row; that takes as long as a forward pass of so many tokens."""


def rows_at_once(longest: int, tokens_per_pass: int) -> int:
    """How many prompts are answered together, the longest of them with its answer having so many tokens."""
    return max(1, min(BATCH_ROWS, _CACHED_PASSES * tokens_per_pass // longest))


def batch_work(rows: int, prompt_tokens: int, max_tokens: int, device: str) -> int:
    """Of answering so many prompts together, each padded to `prompt_tokens`, at most."""
    return rows * prompt_tokens + max_tokens * max(rows, _TOKENS_OF_A_PASS[device])


def scored_steps(steps: Sequence[int], work: int, training_tokens: float) -> tuple[int, ...]:
    """Which of the evaluations after `steps` are scored, where that decides nothing: as many, the last one
    among them, as `SHARE` of a training on so many tokens pays for, each taking `work`."""
    times = math.floor(SHARE * training_tokens * _TRAINING_PASSES / work)
    return tuple(steps[::-1][:: math.ceil(len(steps) / times)]) if times else ()
