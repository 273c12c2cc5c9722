"""One training run, from top to bottom: load, render, train, evaluate, save, publish.

`run` says how it ended; everything in between is `_train`. The pieces it is made of know nothing of each
other.
"""

import dataclasses
import hashlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch

from trainer import events, pacing
from trainer.base_model import check_directory
from trainer.canary import choose_sequences, logprobs, measure
from trainer.channel import (
    CANCELLED_EXIT_CODE,
    PAUSED_EXIT_CODE,
    CancellationError,
    Channel,
    PauseError,
)
from trainer.checkpoints import Checkpoints, Progress
from trainer.config import JobFile, Objective, Technique
from trainer.events import Stage
from trainer.exam import Exam
from trainer.failures import explain
from trainer.footprint import peak_bytes
from trainer.model import Base, load_base, quantise, release
from trainer.optimization import learning_rate
from trainer.precision import fastest_dtype
from trainer.publication import Artifact, publish, round_as_published
from trainer.rendering import Renderer
from trainer.rows import Example, StepOrder, leaked_rows, load_examples, split_validation
from trainer.starting import begin_at
from trainer.steps import Pace, Trainee, evaluate, train_step
from trainer.verdict import Beginning
from trainer.watching import Measured, Watch

PUBLISHED_EXIT_CODE = 0
FAILED_EXIT_CODE = 1


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a fork server has ready before a job comes."""

    base: Base
    renderer: Renderer


def prepare(path: Path, dtype: torch.dtype) -> Prepared:
    """Load what a job on the base at `path` needs. Raises BaseModelLoadError, RenderingError."""
    return Prepared(base=load_base(path, dtype), renderer=Renderer.from_directory(path))


def run(
    job: JobFile, channel: Channel, *, prepared: Prepared | None = None, dtype: torch.dtype | None = None
) -> int:
    """Train, publish, and say so; returns the process's exit status (0, 1 failed, 3 cancelled, 4 paused).

    `prepared` is used where it fits the job. `dtype` None means what is fastest here. Never raises.
    """
    try:
        channel.send(_train(job, channel, prepared, dtype))
    except CancellationError:
        channel.send(events.Cancelled(time=channel.clock()))
        return CANCELLED_EXIT_CODE
    except PauseError as pause:
        channel.send(events.Paused(time=channel.clock(), step=pause.step))
        return PAUSED_EXIT_CODE
    except Exception as error:  # whatever it is, the run has failed and has to say so
        traceback.print_exc(file=sys.stderr)
        reason, message = explain(error)
        channel.send(events.Failed(time=channel.clock(), reason=reason, message=message))
        return FAILED_EXIT_CODE
    return PUBLISHED_EXIT_CODE


def _train(
    job: JobFile, channel: Channel, prepared: Prepared | None, dtype: torch.dtype | None
) -> events.Published:
    channel.send(events.Loading(time=channel.clock(), pid=os.getpid()))
    settings = job.hyperparameters
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if prepared is None or prepared.base.path != job.base_model.path:
        with channel.working_on(Stage.LOADING_BASE_MODEL):
            prepared = prepare(job.base_model.path, dtype or fastest_dtype(device))
    base, renderer = prepared.base, prepared.renderer

    context = check_directory(job.base_model.path)
    max_length = pacing.row_limit(settings, job.technique, context)
    rows = load_examples(
        job.dataset_path, renderer, max_length=max_length, objective=job.objective, between=channel.check
    )
    training, validation = split_validation(rows, settings.validation_fraction, settings.seed)
    order = StepOrder(rows=training, batch_size=settings.batch_size, seed=settings.seed)
    total_steps = pacing.total_steps(settings, len(training))
    evaluate_every = pacing.evaluation_interval(settings, total_steps)
    checkpoint_every = settings.checkpoint_every_steps or evaluate_every

    with channel.working_on(Stage.LOADING_BASE_MODEL):  # now to where it is trained
        if job.technique is Technique.QLORA:
            quantise(base.model, device, channel.check)
        trainee = Trainee.of(base, settings, device, job.technique, job.objective)
    checkpoints = Checkpoints(job.work_path / "checkpoints", _fingerprint(job))
    beginning = _begin(job, trainee, training, validation, channel)
    progress = _resume(checkpoints, trainee, channel)

    watch = Watch(
        settings,
        channel,
        progress,
        total_steps,
        measure=_measuring(job, trainee, training, validation, renderer, channel, context=context),
        keep_best=partial(_keep_best, checkpoints, trainee, channel),
        restore_best=partial(_restore_best, checkpoints, trainee, channel),
        beginning=beginning,
    )
    channel.check()
    channel.send(events.FirstForward(time=channel.clock()))
    pace = Pace(progress)
    done = progress.step
    while done < total_steps and not watch.patience_is_spent:
        if channel.pause_is_wished:
            _pause(checkpoints, watch.seen(pace.progress), trainee, channel)
        begin = time.perf_counter()
        rate = learning_rate(settings, done, total_steps)
        with watch.telling_of_divergence():
            loss, grad_norm, tokens = train_step(trainee, order.rows_of_step(done), done, rate, channel)
        done += 1
        pace.add(done, tokens, time.perf_counter() - begin)
        watch.stepped(loss)

        if done == progress.step + 1:
            channel.send(events.FirstStep(time=channel.clock(), step=done))
        if done % settings.log_every_steps == 0 or done == total_steps:
            channel.send(
                events.Metrics(
                    time=channel.clock(),
                    step=done,
                    total_steps=total_steps,
                    loss=loss,
                    learning_rate=rate,
                    grad_norm=grad_norm,
                    tokens_per_second=pace.take_tokens_per_second(),
                    peak_memory_bytes=peak_bytes(device),
                    eta_seconds=pace.seconds_left(total_steps),
                    epoch=done / order.steps_per_epoch,
                    tokens=pace.progress.tokens,
                    **_rewards(trainee, training=True),
                )
            )
        if done % evaluate_every == 0 or done == total_steps:
            with watch.telling_of_divergence():
                watch.evaluate(done)
        if done % checkpoint_every == 0 and done < total_steps:  # then comes the adapter itself
            _save(checkpoints, watch.seen(pace.progress), trainee, channel)

    best_step = watch.conclude(done)
    channel.send(events.Saving(time=channel.clock(), step=done, best_step=best_step))
    figures = {
        **watch.figures(best_step),
        "steps": done,
        "tokens": pace.progress.tokens,
        "training_seconds": pace.progress.seconds,
        "training_rows": len(training),
        "validation_rows": len(validation),
    }
    artifact = _publish(
        job, channel, trainee, choose_sequences([example.rows[0] for example in training]), renderer, figures
    )
    return events.Published(
        time=channel.clock(),
        step=done,
        digest=artifact.digest,
        size_bytes=artifact.size_bytes,
        rank=trainee.adapted.rank,
        best_step=best_step,
    )


def _begin(
    job: JobFile,
    trainee: Trainee,
    training: Sequence[Example],
    validation: Sequence[Example],
    channel: Channel,
) -> Beginning | None:
    """Begin as the job says, also where a checkpoint will take the place of it: preferences refer to the
    beginning, and the verdict compares with it.

    Gives how a version and the base do on the rows set aside; None for fresh weights, where none are set
    aside, and for preferences, whose loss says nothing of the model before. Raises TrainingError,
    CancellationError.
    """
    start, beginning = job.start_version, None
    if start is not None:
        compared = validation if job.objective is Objective.SUPERVISED else ()
        with trainee.adapted.base_alone():  # which is there at no cost before anything is trained
            base_loss = evaluate(trainee, compared, channel) if compared else None
        with channel.working_on(Stage.LOADING_START_VERSION):
            begin_at(start, job, trainee.matrices)
        trainee.adapted.take_over()
        if base_loss is not None:
            version_loss = evaluate(trainee, compared, channel)
            beginning = Beginning(version=start.name, version_loss=version_loss, base_loss=base_loss)
    passes = trainee.passes([*training, *validation])
    with channel.working_on(Stage.MEASURING_START):
        trainee.criterion.prepare(passes, channel.check, continues=start is not None)
    return beginning


def _resume(checkpoints: Checkpoints, trainee: Trainee, channel: Channel) -> Progress:
    """Go on at the newest whole checkpoint, and say so; where there is none, begin with what is there."""
    with channel.working_on(Stage.LOADING_CHECKPOINT):
        progress = checkpoints.resume(trainee.matrices, trainee.optimizer)
    if progress is None:
        return Progress.none()
    channel.send(events.Resumed(time=channel.clock(), step=progress.step))
    return progress


def _save(checkpoints: Checkpoints, progress: Progress, trainee: Trainee, channel: Channel) -> None:
    """Write a checkpoint and say so. Raises OSError."""
    with channel.working_on(Stage.SAVING_CHECKPOINT):
        checkpoints.save(progress, trainee.matrices, trainee.optimizer)
    channel.send(events.CheckpointSaved(time=channel.clock(), step=progress.step))


def _keep_best(checkpoints: Checkpoints, trainee: Trainee, channel: Channel, step: int) -> None:
    with channel.working_on(Stage.SAVING_CHECKPOINT):
        checkpoints.save_best(step, trainee.matrices)


def _restore_best(checkpoints: Checkpoints, trainee: Trainee, channel: Channel, step: int) -> None:
    with channel.working_on(Stage.LOADING_CHECKPOINT):
        checkpoints.restore_best(step, trainee.matrices)


def _pause(checkpoints: Checkpoints, progress: Progress, trainee: Trainee, channel: Channel) -> NoReturn:
    """Save where the run stands, and end it there. Raises PauseError, OSError."""
    if progress.step:
        _save(checkpoints, progress, trainee, channel)
    raise PauseError(progress.step)


def _measuring(
    job: JobFile,
    trainee: Trainee,
    training: Sequence[Example],
    validation: Sequence[Example],
    renderer: Renderer,
    channel: Channel,
    *,
    context: int,
) -> Callable[[int], Measured] | None:
    """How to evaluate on the rows set aside, None where there are none. Raises TrainingError.

    What it gives raises CancellationError, TrainingError.
    """
    if not validation:
        return None
    leaked = leaked_rows(training, validation)
    exam = Exam.for_job(job, validation, training, renderer, trainee, context=context)

    def measure(step: int) -> Measured:
        eval_loss = evaluate(trainee, validation, channel)
        score = None
        if exam is not None and step in exam.steps:
            score = exam.score(trainee, renderer, channel)
        return Measured(
            eval_loss=eval_loss,
            rows=len(validation),
            leaked_rows=leaked,
            task_score=score,
            **_rewards(trainee, training=False),
        )

    return measure


def _publish(
    job: JobFile,
    channel: Channel,
    trainee: Trainee,
    sequences: Sequence[tuple[int, ...]],
    renderer: Renderer,
    figures: Mapping[str, float | int | str | None],
) -> Artifact:
    """Round, measure on the base as it is served, and publish."""
    round_as_published(trainee.adapted)
    trainee.optimizer.state.clear()  # its memory is that of two models, and none of it is needed any more
    quantised = None
    if job.technique is Technique.QLORA:  # the 4-bit base only stood in for the 16-bit one while training
        quantised = logprobs(trainee.row_loss, sequences, channel.check)
        saved = trainee.matrices
        release(trainee.model)  # both at once would need more than training did
        with channel.working_on(Stage.LOADING_BASE_MODEL):
            whole = load_base(job.base_model.path, trainee.dtype)
            trainee = Trainee.of(whole, job.hyperparameters, trainee.device, job.technique)
        for name, matrix in trainee.matrices.items():
            matrix.data.copy_(saved[name])
    with channel.working_on(Stage.MEASURING_CANARY):
        canary = measure(trainee.row_loss, sequences, channel.check, quantised)
    return publish(
        job,
        channel,
        adapted=trainee.adapted,
        rendering=renderer.contract(),
        canary=canary,
        metrics=figures,
    )


def _rewards(trainee: Trainee, *, training: bool) -> dict[str, float]:
    rewards = trainee.criterion.take_rewards(training=training)
    return {} if rewards is None else dataclasses.asdict(rewards)


def _fingerprint(job: JobFile) -> str:
    """What a checkpoint is good for: the same job with the same settings, data and weights."""
    parts = [
        job.job_id,
        job.base_model.revision,
        job.dataset_sha256,
        job.technique,
        job.objective,
        dataclasses.asdict(job.hyperparameters),
        None if job.start_version is None else job.start_version.path.name,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
