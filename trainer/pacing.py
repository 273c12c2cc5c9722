"""How many rows are set aside, how many steps a run has, how often it looks up, how much it takes at once.

Standard library only: whoever accepts a job or plans one counts with this as the trainer will.
"""

import math
from collections.abc import Mapping

from trainer.config import Hyperparameters, Technique

EVALUATIONS = 4
"""In a run that does not say how often."""
TOKENS_PER_PASS: Mapping[str, int] = {"cpu": 1024, "cuda": 16384}
"""Budget of one forward pass by kind of device: more fills the processor better, less needs less memory and
answers sooner."""
LOGITS_AT_ONCE = 4_194_304
"""That are held in 32 bits at a time (16 MiB); fewer cost calls, more cost memory."""


def validation_count(rows: int, fraction: float) -> int:
    """How many of `rows` rows are set aside: one at least where `fraction` is above 0; one always trains."""
    return 0 if fraction == 0 or rows < 2 else max(1, min(round(rows * fraction), rows - 1))


def row_limit(settings: Hyperparameters, technique: Technique, context_length: int) -> int:
    """Tokens that a row of the run may have, at least 2; virtual tokens take theirs from the context."""
    virtual_tokens = settings.virtual_tokens if technique is Technique.PROMPT_TUNING else 0
    return max(2, min(settings.max_sequence_length, context_length - virtual_tokens))


def total_steps(settings: Hyperparameters, training_rows: int) -> int:
    """Optimizer steps of the whole run."""
    return settings.max_steps or settings.epochs * math.ceil(training_rows / settings.batch_size)


def evaluation_interval(settings: Hyperparameters, steps: int) -> int:
    """Optimizer steps between two evaluations in a run of `steps`."""
    return settings.eval_every_steps or math.ceil(steps / EVALUATIONS)


def evaluations(settings: Hyperparameters, steps: int) -> int:
    """Evaluations in a run of `steps`; the last step always evaluates."""
    return math.ceil(steps / evaluation_interval(settings, steps))
