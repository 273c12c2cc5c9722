"""Tuning jobs, their events and checkpoints in the shapes of the OpenAI API. Pure."""

from collections.abc import Sequence

from service.registry import EventRow, JobRow, StateChanged, VersionRow
from service.registry.states import JOB_ENDED, JobState, VersionState
from trainer import events
from trainer.config import Objective

_STATUSES = {
    JobState.QUEUED: "queued",
    JobState.RUNNING: "running",
    JobState.CANCELLING: "running",
    JobState.PAUSING: "running",
    JobState.PAUSED: "paused",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}
"""A job that SUCCEEDED is what its version is."""
_ANSWERS = frozenset({VersionState.ACTIVE, VersionState.RETIRING, VersionState.RETIRED})


def job_object(job: JobRow, version: VersionRow | None) -> dict[str, object]:
    """A job. `version` is what it made; None before that, and once its adapter is deleted."""
    settings = job.hyperparameters
    hyperparameters = {
        "n_epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "learning_rate_multiplier": "auto",
    }
    kind = "dpo" if job.objective is Objective.PREFERENCE else "supervised"
    status = _status(job, version)
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": int(job.create_time),
        "finished_at": _seconds(job.end_time) if status in ("succeeded", "failed", "cancelled") else None,
        "model": job.base_model,
        "fine_tuned_model": version.model if version is not None and status == "succeeded" else None,
        "organization_id": "hotlora",
        "status": status,
        "error": _error(job, version),
        "training_file": job.dataset_id,
        "validation_file": job.evaluation_dataset_id,
        "result_files": [],
        "trained_tokens": None if job.latest_metrics is None else job.latest_metrics.tokens,
        "estimated_finish": _estimated(job),
        "hyperparameters": hyperparameters,
        "method": {"type": kind, kind: {"hyperparameters": hyperparameters}},
        "seed": settings.seed,
        "integrations": [],
        "metadata": None,
    }


def _status(job: JobRow, version: VersionRow | None) -> str:
    if job.state is not JobState.SUCCEEDED:
        return _STATUSES[job.state]
    if version is None or version.state in _ANSWERS:
        return "succeeded"
    return "failed" if version.state is VersionState.FAILED else "running"


def _error(job: JobRow, version: VersionRow | None) -> dict[str, object] | None:
    if job.failure_reason is not None:
        reason, message = job.failure_reason, job.failure_message
    elif version is not None and version.failure_reason is not None:
        reason, message = version.failure_reason, version.failure_message
    else:
        return None
    return {"code": reason.lower(), "message": message or "", "param": None}


def _estimated(job: JobRow) -> int | None:
    metrics = job.latest_metrics
    if metrics is None or job.state in JOB_ENDED:
        return None
    return int(metrics.time + metrics.eta_seconds)


def event_object(event: EventRow) -> dict[str, object]:
    """Something that happened to a job."""
    metrics = _metrics(event)
    level, message = _told(event)
    return {
        "id": event_id(event),
        "object": "fine_tuning.job.event",
        "created_at": int(event.time),
        "level": level,
        "type": "message" if metrics is None else "metrics",
        "message": message,
        "data": metrics or {},
    }


def event_id(event: EventRow) -> str:
    """Never the same for two events."""
    return f"{event.job_id}-{event.sequence}"


def _metrics(event: EventRow) -> dict[str, object] | None:
    match event.body:
        case events.Metrics() as body:
            return {
                "step": body.step,
                "total_steps": body.total_steps,
                "train_loss": body.loss,
                "learning_rate": body.learning_rate,
                "tokens_per_second": body.tokens_per_second,
            }
        case events.Evaluation() as body:
            return {"step": body.step, "valid_loss": body.eval_loss, "task_score": body.task_score}
        case _:
            return None


def _told(event: EventRow) -> tuple[str, str]:
    """Level and sentence."""
    level, message = "info", event.kind.replace("_", " ").capitalize()
    match event.body:
        case StateChanged(message=None) as body:
            message = f"The job is {body.state.value.lower()}"
        case StateChanged() as body:
            level = "error" if body.state is JobState.FAILED else "warn"
            message = f"The job is {body.state.value.lower()}: {body.message}"
        case events.Metrics() as body:
            message = f"Step {body.step}/{body.total_steps}: training loss={body.loss:.4f}"
        case events.Evaluation() as body:
            message = f"Step {body.step}: validation loss={body.eval_loss:.4f}"
        case events.CheckpointSaved() as body:
            message = f"Checkpoint saved at step {body.step}"
        case events.Fit() as body:
            message = f"The fit is {body.verdict.value.lower().replace('_', ' ')}"
    return level, message


def checkpoint_object(job: JobRow, version: VersionRow, told: Sequence[EventRow]) -> dict[str, object]:
    """What a job published."""
    bodies = [event.body for event in told]
    step = job.best_step or (0 if job.latest_metrics is None else job.latest_metrics.step)
    losses = [body.loss for body in bodies if isinstance(body, events.Metrics) and body.step == step]
    evaluations = [body for body in bodies if isinstance(body, events.Evaluation) and body.step == step]
    metrics: dict[str, object] = {"step": step}
    if losses:
        metrics["train_loss"] = losses[-1]
    if evaluations:
        metrics["full_valid_loss"] = evaluations[-1].eval_loss
    return {
        "id": f"{job.id}-step-{step}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": int(version.create_time),
        "fine_tuning_job_id": job.id,
        "fine_tuned_model_checkpoint": version.model,
        "step_number": step,
        "metrics": metrics,
    }


def _seconds(time: float | None) -> int | None:
    return None if time is None else int(time)
