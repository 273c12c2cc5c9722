"""The exam: what the model in training answers to rows set aside, scored as the dataset's task asks.

A bounded sample of the rows, chosen by the seed once for the whole run, so that scores of one run compare.
Where the score decides what is better, every evaluation has one. Else it is there to be looked at and has
to be cheap: few questions, after as many evaluations, the last one among them, as take a share of the
training's work together. Work is reckoned in tokens and not timed, so that the same run is scored at the
same steps everywhere. It does not know how answers are made.
"""

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from trainer import effort, pacing, scoring
from trainer.channel import Channel
from trainer.config import JobFile, Metric, Task
from trainer.events import FailureReason
from trainer.failures import TrainingError
from trainer.generation import answer, work
from trainer.rendering import Renderer
from trainer.rows import Example, Row
from trainer.steps import Trainee

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
    steps: tuple[int, ...]
    """After which it is held: those of some evaluations, or of all."""

    @classmethod
    def for_job(
        cls,
        job: JobFile,
        aside: Sequence[Example],
        others: Sequence[Example],
        renderer: Renderer,
        trainee: Trainee,
        *,
        context: int,
    ) -> Self | None:
        """The exam of a job, on a sample of the rows set `aside`; None where there is no task, and where a
        score that decides nothing cannot be had or would cost too much.

        `context` is the base's, in tokens. `others` are trained on. Raises TrainingError(DATA_ERROR) where
        the score decides and cannot be had.
        """
        settings = job.hyperparameters
        decides = settings.early_stopping_metric is Metric.TASK_SCORE
        questions = effort.MAX_QUESTIONS if decides else effort.BATCH_ROWS
        room = context - trainee.adapted.virtual_tokens
        try:
            exam = cls._of(job, aside, others, renderer, questions, room)
        except _UnfitError as error:
            if not decides:
                return None
            raise TrainingError(FailureReason.DATA_ERROR, f"{error}; use the evaluation loss.") from error
        if decides:
            return exam
        tokens = sum(len(row.token_ids) for example in others for row in example.rows)
        a_step = settings.batch_size * tokens / len(others)
        total_steps = pacing.total_steps(settings, len(others))
        a_time = work(trainee, exam.prompts, exam.max_tokens)
        steps = effort.scored_steps(exam.steps, a_time, total_steps * a_step)
        return dataclasses.replace(exam, steps=steps) if steps else None

    @classmethod
    def _of(
        cls,
        job: JobFile,
        aside: Sequence[Example],
        others: Sequence[Example],
        renderer: Renderer,
        questions: int,
        room: int,
    ) -> Self:
        """`room` is what question and answer may have together, in tokens. Raises _UnfitError."""
        if job.task is None:
            raise _UnfitError("The dataset names no task to score")
        task, stops = job.task, renderer.eos_token_ids
        rows = [row for row in aside if isinstance(row, Row)]  # pairs have no one right answer
        draw = random.Random(f"exam {job.hyperparameters.seed}")
        chosen = draw.sample(range(len(rows)), min(questions, len(rows)))
        cut = [_cut(rows[index], stops) for index in sorted(chosen)]
        limit = min(effort.MAX_TOKENS, max((len(reference) for _, reference in cut), default=0) + effort.ROOM)
        asked = [(prompt, reference) for prompt, reference in cut if len(prompt) + limit <= room]
        if not asked:
            raise _UnfitError(
                f"No row set aside leaves {limit} tokens of the base's context for an answer, so the task "
                "cannot be scored"
            )
        references = tuple(renderer.decode(reference).strip() for _, reference in asked)
        every = [row for row in (*aside, *others) if isinstance(row, Row)]
        labels = (
            scoring.labels_of([renderer.decode(_cut(row, stops)[1]) for row in every])
            if task is Task.CLASSIFICATION
            else ()
        )
        try:
            scoring.score(task, references, references, labels)
        except ValueError as error:
            raise _UnfitError(f"The rows do not fit the dataset's task: {error}") from error
        return cls(
            task=task,
            prompts=tuple(prompt for prompt, _ in asked),
            references=references,
            labels=labels,
            stops=stops,
            max_tokens=limit,
            steps=_evaluated(job, len(others)),
        )

    def score(self, trainee: Trainee, renderer: Renderer, channel: Channel) -> float:
        """The task's figure, 0 to 1, on answers generated now. Raises CancellationError, TrainingError."""
        tokens = answer(
            trainee, self.prompts, stops=self.stops, max_tokens=self.max_tokens, between=channel.check
        )
        answers = [renderer.decode(each).strip() for each in tokens]
        result = scoring.score(self.task, answers, self.references, self.labels)
        return result.figures.get(_SCORES.get(self.task, ""), result.headline)


class _UnfitError(Exception):
    """Why the rows cannot be scored."""


def _evaluated(job: JobFile, training_rows: int) -> tuple[int, ...]:
    """Steps after which the run evaluates."""
    steps = pacing.total_steps(job.hyperparameters, training_rows)
    interval = pacing.evaluation_interval(job.hyperparameters, steps)
    return (*range(interval, steps, interval), steps)


def _cut(row: Row, stops: frozenset[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What stands before a row's last answer, and that answer without the tokens that end it."""
    end = max(index for index, flag in enumerate(row.trained) if flag) + 1
    prompt = row.prompt
    reference = row.token_ids[len(prompt) : end]
    while reference and reference[-1] in stops:
        reference = reference[:-1]
    return prompt, reference
