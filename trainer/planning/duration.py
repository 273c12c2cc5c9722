"""How long a run takes: its tokens, and the seconds that they cost on a device.

Speed comes from a probe of the real loop, from one of a like technique, or from what a described device
multiplies a second; without any of them there is no answer. Standard library only.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from trainer import effort
from trainer.config import Hyperparameters, Metric, Objective, Technique
from trainer.pacing import TOKENS_PER_PASS, evaluations, total_steps, validation_count
from trainer.planning.shape import ModelShape

_START_SECONDS = 3.0
"""From a free trainer to the first forward pass, and from the last step to the published adapter."""
_MULTIPLY_ADDS = {
    Technique.FULL: 6,
    Technique.LORA: 4,
    Technique.QLORA: 4,
    Technique.PROMPT_TUNING: 4,
}
"""Floating-point operations a parameter and token: forward 2, back to the inputs 2, to the weights 2."""
_FORWARD_SHARE = {technique: 2 / operations for technique, operations in _MULTIPLY_ADDS.items()}


class Source(StrEnum):
    """Where a speed comes from."""

    PROBE = "probe"
    """Measured on this device with this technique."""
    LIKENESS = "likeness"
    """Measured with another technique, and scaled by the arithmetic of both."""
    ARITHMETIC = "arithmetic"
    """What a described device is said to multiply."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained on, in numbers."""

    rows: int
    """Preferences: pairs."""
    tokens: int
    """Of all rows; of preferences, of both sides."""
    longest_row: int
    """Of preferences, the longest side of all."""
    trained_share: float
    """Part of the tokens that carry loss."""
    objective: Objective = Objective.SUPERVISED
    """What such rows are trained for; preferences take a smaller rate."""
    is_cut: bool = False
    """Texts: what is longer than a run takes is trained on in pieces. All other rows stay whole."""
    has_task: bool = False
    """Evaluations score answers to rows that are set aside."""

    @property
    def mean_row(self) -> float:
        """Tokens; of preferences, of both sides."""
        return self.tokens / max(1, self.rows)

    @property
    def sides(self) -> int:
        """Rows of token ids that go through the model for one of ours."""
        return 2 if self.objective is Objective.PREFERENCE else 1

    def in_pieces(self, max_length: int) -> "Data":
        """The same as a run with that many tokens a row takes it. Pieces are counted exactly where one text
        is long or all are alike, else nearly: the lengths of single texts are not known here.
        """
        if not self.is_cut or self.longest_row <= max_length:
            return self
        others = self.rows - 1
        mean = (self.tokens - self.longest_row) / max(1, others)
        pieces = _pieces(self.longest_row, max_length) + others * _pieces(mean, max_length)
        # Each piece but a text's first begins with the last token of the one before.
        return replace(self, rows=pieces, tokens=self.tokens + pieces - self.rows, longest_row=max_length)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds of an optimizer step as a line over its tokens."""

    source: Source
    step_seconds: float
    """Of a step besides its tokens."""
    token_seconds: float
    """Of a token in training, forward and back."""

    @property
    def tokens_per_second(self) -> float:
        """Of long steps."""
        return 1 / self.token_seconds


@dataclass(frozen=True, kw_only=True)
class Course:
    """How far a run goes."""

    steps: int
    tokens: int
    """That go through the model in training."""
    evaluated_tokens: int
    """That go through it in evaluations, over the whole run."""
    reference_tokens: int
    """That go through the reference of preferences, once for each pair that the run sees."""


def course(data: Data, settings: Hyperparameters) -> Course:
    """Steps and tokens of a run with these settings on that data."""
    aside = validation_count(data.rows, settings.validation_fraction)
    training = data.rows - aside
    steps = total_steps(settings, training)
    steps_per_epoch = math.ceil(training / settings.batch_size)
    epochs = steps / steps_per_epoch
    seen = (min(1.0, epochs) * training + aside) if data.objective is Objective.PREFERENCE else 0
    return Course(
        steps=steps,
        tokens=round(epochs * training * data.mean_row),
        evaluated_tokens=round(evaluations(settings, steps) * aside * data.mean_row),
        reference_tokens=round(seen * data.mean_row),
    )


def answering(data: Data, settings: Hyperparameters, *, device: str, virtual_tokens: int = 0) -> int:
    """Tokens whose forward pass takes as long as all answers that evaluations of the run score.

    Rows are thought to be alike, so this is nearly what `trainer.exam` reckons. `virtual_tokens` stand in
    front of every prompt; `device` is `cpu` or `cuda`.
    """
    aside = validation_count(data.rows, settings.validation_fraction)
    if not data.has_task or not aside:
        return 0
    decides = settings.early_stopping_metric is Metric.TASK_SCORE
    questions = min(aside, effort.MAX_QUESTIONS if decides else effort.BATCH_ROWS)
    reference = data.mean_row * data.trained_share
    prompt = virtual_tokens + round(data.mean_row - reference)
    answer = min(effort.MAX_TOKENS, math.ceil(reference) + effort.ROOM)
    at_once = effort.rows_at_once(prompt + answer, TOKENS_PER_PASS[device])
    batches = [min(at_once, questions - begin) for begin in range(0, questions, at_once)]
    work = sum(effort.batch_work(rows, prompt, answer, device) for rows in batches)
    steps = total_steps(settings, data.rows - aside)
    count = evaluations(settings, steps)
    if not decides:
        training = steps * settings.batch_size * data.mean_row
        count = len(effort.scored_steps(range(count), work, training))
    return count * work


def _pieces(tokens: float, max_length: int) -> int:
    """Of a text of so many tokens."""
    return max(1, math.ceil((tokens - 1) / (max_length - 1)))


def seconds(way: Course, technique: Technique, speed: Speed, *, answering: int = 0) -> float:
    """Of the whole run; `answering` are the tokens of answers that are scored, as the function has them."""
    training = way.steps * speed.step_seconds + way.tokens * speed.token_seconds
    forward = way.evaluated_tokens + way.reference_tokens + answering
    return _START_SECONDS + training + forward * speed.token_seconds * _FORWARD_SHARE[technique]


def operations_per_token(shape: ModelShape, technique: Technique) -> float:
    """Floating-point operations of training with one token; the attention's own are not counted."""
    return float(_MULTIPLY_ADDS[technique] * shape.multiplied_parameters)


def speed_of_device(shape: ModelShape, technique: Technique, operations_per_second: float) -> Speed:
    """Of a device that is only described."""
    return Speed(
        source=Source.ARITHMETIC,
        step_seconds=0.0,
        token_seconds=operations_per_token(shape, technique) / operations_per_second,
    )


def speed_like(other: Speed, shape: ModelShape, measured: Technique, wanted: Technique) -> Speed:
    """Of a technique that was not measured, from one that was."""
    ratio = operations_per_token(shape, wanted) / operations_per_token(shape, measured)
    return Speed(
        source=Source.LIKENESS,
        step_seconds=other.step_seconds,
        token_seconds=other.token_seconds * ratio,
    )
