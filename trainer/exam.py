"""The exam: what the model in training answers to rows set aside, scored as the dataset's task asks.

A bounded sample of the rows, chosen by the seed once for the whole run, so that scores of one run compare.
It does not know how answers are made, nor when they are asked for.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from trainer import scoring
from trainer.channel import Channel
from trainer.config import JobFile, Metric, Task
from trainer.events import FailureReason
from trainer.failures import TrainingError
from trainer.generation import answer
from trainer.rendering import Renderer
from trainer.rows import Example, Row
from trainer.steps import Trainee

MAX_QUESTIONS = 48
"""More would cost more time than the steps between two evaluations on a CPU."""
MAX_TOKENS = 128
"""Of an answer; longer references are compared with what fits."""
_ROOM = 8
"""Tokens that an answer may be longer than the longest reference: a wrong one need not be told in full."""
_SCORES = {Task.GENERATION: "rouge_l"}
"""The figure of a task where it is not the headline."""


@dataclass(frozen=True, kw_only=True)
class Exam:
    """Questions with the answers that would be right."""

    task: Task
    prompts: tuple[tuple[int, ...], ...]
    references: tuple[str, ...]
    labels: tuple[str, ...]
    """Of a classification, those of all rows; else empty."""
    stops: frozenset[int]
    max_tokens: int

    @classmethod
    def for_job(
        cls,
        job: JobFile,
        aside: Sequence[Example],
        others: Sequence[Example],
        renderer: Renderer,
        *,
        context: int,
    ) -> Self | None:
        """The exam of a job, on a sample of the rows set `aside`; None where the job asks for no score.

        `context` is what question and answer may have together, in tokens. `others` only tell what labels
        there are besides. Raises TrainingError(DATA_ERROR).
        """
        if job.hyperparameters.early_stopping_metric is not Metric.TASK_SCORE:
            return None
        if job.task is None:
            raise TrainingError(
                FailureReason.DATA_ERROR, "The dataset names no task to score; use the evaluation loss."
            )
        task, seed = job.task, job.hyperparameters.seed
        rows = [row for row in aside if isinstance(row, Row)]  # pairs have no one right answer
        stops = renderer.eos_token_ids
        chosen = random.Random(f"exam {seed}").sample(range(len(rows)), min(MAX_QUESTIONS, len(rows)))
        cut = [_cut(rows[index], stops) for index in sorted(chosen)]
        limit = min(MAX_TOKENS, max((len(reference) for _, reference in cut), default=0) + _ROOM)
        asked = [(prompt, reference) for prompt, reference in cut if len(prompt) + limit <= context]
        if not asked:
            raise TrainingError(
                FailureReason.DATA_ERROR,
                f"No row set aside leaves {limit} tokens of the base's context for an answer, so the task "
                "cannot be scored; use the evaluation loss.",
            )
        every = [row for row in (*aside, *others) if isinstance(row, Row)]
        return cls(
            task=task,
            prompts=tuple(prompt for prompt, _ in asked),
            references=tuple(renderer.decode(reference).strip() for _, reference in asked),
            labels=scoring.labels_of([renderer.decode(_cut(row, stops)[1]) for row in every])
            if task is Task.CLASSIFICATION
            else (),
            stops=stops,
            max_tokens=limit,
        )

    def score(self, trainee: Trainee, renderer: Renderer, channel: Channel) -> float:
        """The task's figure, 0 to 1, on answers generated now. Raises CancellationError, TrainingError."""
        tokens = answer(
            trainee, self.prompts, stops=self.stops, max_tokens=self.max_tokens, between=channel.check
        )
        answers = [renderer.decode(each).strip() for each in tokens]
        try:
            result = scoring.score(self.task, answers, self.references, self.labels)
        except ValueError as error:
            raise TrainingError(
                FailureReason.DATA_ERROR, f"The rows do not fit the dataset's task: {error}."
            ) from error
        return result.figures.get(_SCORES.get(self.task, ""), result.headline)


def _cut(row: Row, stops: frozenset[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What stands before a row's last answer, and that answer without the tokens that end it."""
    end = max(index for index, flag in enumerate(row.trained) if flag) + 1
    begin = end
    while begin and row.trained[begin - 1]:
        begin -= 1
    reference = row.token_ids[begin:end]
    while reference and reference[-1] in stops:
        reference = reference[:-1]
    return row.token_ids[:begin], reference
