"""The task's own score during training: real greedy answers, scored as evaluations score them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.conftest import Bases, Jobs, Recorder
from trainer import events
from trainer.attention import rows_of
from trainer.batches import pack, pad
from trainer.channel import Channel
from trainer.config import Hyperparameters, Metric, Objective, Task, Technique
from trainer.events import FailureReason
from trainer.exam import Exam
from trainer.generation import answer, work
from trainer.model import load_base
from trainer.planning import Data
from trainer.planning.duration import answering
from trainer.rendering import Renderer
from trainer.rows import Row, load_examples, split_validation
from trainer.run import run
from trainer.steps import Trainee

CPU = torch.device("cpu")
QUIET = Channel(lambda line: None)
LEARNING = {
    "learning_rate": 3e-2,
    "max_steps": 60,
    "validation_fraction": 0.5,
    "eval_every_steps": 10,
    "schedule": "constant",
    "early_stopping_metric": Metric.TASK_SCORE,
}


def rows_of_dataset(base: Path, dataset: Path) -> list[Row]:
    """All rows, as that base sees them."""
    renderer = Renderer.from_directory(base)
    examples = load_examples(dataset, renderer, max_length=512, objective=Objective.SUPERVISED)
    return [row for row in examples if isinstance(row, Row)]


def prompts_of(base: Path, dataset: Path) -> list[tuple[int, ...]]:
    """What stands before the answers of some rows of differing lengths."""
    return [row.token_ids[: row.trained.index(True)] for row in rows_of_dataset(base, dataset)[:7]]


@torch.no_grad()
def slow_answer(trainee: Trainee, prompt: tuple[int, ...], tokens: int) -> list[int]:
    """One token after the other, each by a whole forward pass as training makes it."""
    form = pack if trainee.packs else pad
    ids = list(prompt)
    for _ in range(tokens):
        row = Row(token_ids=(*ids, 0), trained=(*[False] * len(ids), True))
        batch = form([row], CPU, trainee.adapted.virtual_tokens)
        with rows_of(batch.row_lengths):
            ids.append(int(trainee.adapted.logits(batch).flatten(0, 1)[-1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize(
    ("family", "technique"),
    [
        ("llama", Technique.LORA),
        ("llama", Technique.PROMPT_TUNING),
        ("llama", Technique.FULL),
        ("gpt2", Technique.LORA),
        ("bloom", Technique.LORA),
    ],
)
def test_answers_are_those_of_the_plain_forward_pass_token_by_token(
    base_of: Bases, rows_path: Path, family: str, technique: Technique
) -> None:
    base = base_of(family)
    settings = Hyperparameters(rank=4, dropout=0.0, virtual_tokens=5)
    trainee = Trainee.of(load_base(base, torch.float32), settings, CPU, technique)
    torch.manual_seed(2)
    for weight in trainee.matrices.values():
        weight.data.add_(torch.randn_like(weight), alpha=0.3)
    trainee.adapted.take_over()
    rows = rows_of_dataset(base, rows_path)
    loss = trainee.row_loss(rows[:5]).item()
    prompts = prompts_of(base, rows_path)
    answers = answer(trainee, prompts, stops=(), max_tokens=6, between=QUIET.check)
    assert answers == [slow_answer(trainee, prompt, 6) for prompt in prompts]
    assert len({tuple(each) for each in answers}) > 1
    cramped = replace(trainee, tokens_per_pass=40)
    assert answer(cramped, prompts, stops=(), max_tokens=6, between=QUIET.check) == answers
    if trainee.packs:
        assert work(cramped, prompts, 6) > work(trainee, prompts, 6), (
            "fewer prompts at a time take more passes"
        )
    stop = answers[0][3]
    (stopped,) = answer(trainee, prompts[:1], stops=(stop,), max_tokens=6, between=QUIET.check)
    assert stopped == answers[0][: answers[0].index(stop)]
    assert trainee.row_loss(rows[:5]).item() == loss, "training goes on with its own attention"


def test_the_best_step_is_the_one_with_the_best_score_where_that_is_asked_for(make_job: Jobs) -> None:
    recorder = Recorder()
    job = replace(make_job(**LEARNING), task=Task.CLASSIFICATION)
    assert run(job, recorder.channel, dtype=torch.float32) == 0, recorder.events
    told = recorder.of(events.Evaluation)
    assert [event.step for event in told] == [10, 20, 30, 40, 50, 60]
    scores = [event.task_score for event in told if event.task_score is not None]
    assert len(scores) == len(told)
    assert 0 < max(scores) <= 1
    best = max(told, key=lambda event: (event.task_score or 0.0, -event.eval_loss))
    published = recorder.events[-1]
    assert isinstance(published, events.Published)
    assert published.best_step == best.step
    manifest = json.loads((job.artifacts_path / published.digest / "MANIFEST.json").read_bytes())
    assert manifest["metrics"]["task_score"] == best.task_score


def test_a_score_without_a_task_is_refused(make_job: Jobs) -> None:
    recorder = Recorder()
    assert run(make_job(**LEARNING), recorder.channel, dtype=torch.float32) == 1
    failed = recorder.events[-1]
    assert isinstance(failed, events.Failed)
    assert failed.reason is FailureReason.DATA_ERROR
    assert "names no task" in failed.message


def test_rows_that_are_not_what_the_task_asks_for_fail_with_a_reason(make_job: Jobs) -> None:
    recorder = Recorder()
    job = replace(make_job(**LEARNING), task=Task.ENTITIES)
    assert run(job, recorder.channel, dtype=torch.float32) == 1
    failed = recorder.events[-1]
    assert isinstance(failed, events.Failed)
    assert "do not fit the dataset's task" in failed.message


def test_patience_on_the_score_waits_for_the_score_and_ends_the_run(make_job: Jobs) -> None:
    recorder = Recorder()
    unsteady = {"seed": 1, "rank": 8, "warmup_ratio": 0.0, "max_steps": 100, "early_stopping_patience": 2}
    job = replace(make_job(**LEARNING | unsteady), task=Task.CLASSIFICATION)
    assert run(job, recorder.channel, dtype=torch.float32) == 0, recorder.events
    told = recorder.of(events.Evaluation)
    best = max(told, key=lambda event: (event.task_score or 0.0, -event.eval_loss))
    by_loss = min(told, key=lambda event: event.eval_loss)
    assert best.step != by_loss.step, "the loss would have ended it at the same step"
    assert told[-1].step == best.step + 2 * 10 < 100
    fit = recorder.of(events.Fit)[-1]
    assert fit.stopped_early
    assert (fit.step, fit.best_step) == (told[-1].step, best.step)


@pytest.mark.parametrize(("batch_size", "scored"), [(4, [60]), (12, [20, 40, 60]), (1, [])])
def test_a_score_that_decides_nothing_is_told_as_often_as_a_tenth_of_the_work_pays_for(
    make_job: Jobs, batch_size: int, scored: list[int]
) -> None:
    settings = {**LEARNING, "early_stopping_metric": Metric.EVAL_LOSS, "batch_size": batch_size}
    recorder, unscored = Recorder(), Recorder()
    job = replace(make_job(**settings), task=Task.CLASSIFICATION)
    assert run(job, recorder.channel, dtype=torch.float32) == 0, recorder.events
    assert run(make_job(job_id="no-task", **settings), unscored.channel, dtype=torch.float32) == 0
    told = recorder.of(events.Evaluation)
    assert [event.step for event in told if event.task_score is not None] == scored
    without = unscored.of(events.Evaluation)
    assert [event.eval_loss for event in told] == [event.eval_loss for event in without]
    assert told[-1].best_step == without[-1].best_step


@pytest.mark.parametrize("metric", Metric)
def test_a_plan_reckons_with_the_answers_that_a_run_scores(
    make_job: Jobs, base_of: Bases, rows_path: Path, metric: Metric
) -> None:
    settings = {**LEARNING, "early_stopping_metric": metric, "batch_size": 12}
    job = replace(make_job(**settings), task=Task.CLASSIFICATION)
    rows = rows_of_dataset(base_of("llama"), rows_path)
    others, aside = split_validation(rows, 0.5, job.hyperparameters.seed)
    trainee = Trainee.of(load_base(base_of("llama"), torch.float32), job.hyperparameters, CPU)
    renderer = Renderer.from_directory(base_of("llama"))
    exam = Exam.for_job(job, aside, others, renderer, trainee, context=512)
    assert exam is not None
    tokens = sum(len(row.token_ids) for row in rows)
    data = Data(
        rows=len(rows),
        tokens=tokens,
        longest_row=max(len(row.token_ids) for row in rows),
        trained_share=sum(sum(row.trained) for row in rows) / tokens,
        has_task=True,
    )
    spent = len(exam.steps) * work(trainee, exam.prompts, exam.max_tokens)
    assert answering(data, job.hyperparameters, device="cpu") == pytest.approx(spent, rel=0.2)


def test_rows_that_are_not_what_the_task_asks_for_are_trained_on_where_the_loss_decides(
    make_job: Jobs,
) -> None:
    recorder = Recorder()
    settings = {**LEARNING, "early_stopping_metric": Metric.EVAL_LOSS, "batch_size": 12, "max_steps": 20}
    job = replace(make_job(**settings), task=Task.ENTITIES)
    assert run(job, recorder.channel, dtype=torch.float32) == 0, recorder.events
    assert [event.task_score for event in recorder.of(events.Evaluation)] == [None, None]
