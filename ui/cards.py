"""Jobs as cards: state, progress and figures, as HTML in which every foreign word is escaped."""

from collections.abc import Mapping, Sequence
from html import escape

from hotlora.v1.tuning_service_pb2 import (
    TECHNIQUE_FULL,
    TECHNIQUE_LORA,
    TECHNIQUE_PROMPT_TUNING,
    TECHNIQUE_QLORA,
    Fit,
    Technique,
    TuningJob,
)
from ui.words import about

TECHNIQUES: dict[str, Technique] = {
    "LoRA": TECHNIQUE_LORA,
    "QLoRA": TECHNIQUE_QLORA,
    "Prompt tuning": TECHNIQUE_PROMPT_TUNING,
    "Full": TECHNIQUE_FULL,
}
_STATES = {
    TuningJob.STATE_QUEUED: "queued",
    TuningJob.STATE_RUNNING: "running",
    TuningJob.STATE_CANCELLING: "cancelling",
    TuningJob.STATE_SUCCEEDED: "succeeded",
    TuningJob.STATE_FAILED: "failed",
    TuningJob.STATE_CANCELLED: "cancelled",
    TuningJob.STATE_PAUSING: "pausing",
    TuningJob.STATE_PAUSED: "paused",
}


def state_word(job: TuningJob) -> str:
    """The job's state in lower case."""
    return _STATES.get(job.state, "unknown")


def title(job: TuningJob) -> str:
    """What a picker calls the job."""
    adapter, number = job.adapter.removeprefix("adapters/"), job.name.removeprefix("tuningJobs/")
    return f"{adapter} · {state_word(job)} · {number}"


def cards(jobs: Sequence[TuningJob], quantisation_differences: Mapping[str, float]) -> str:
    """All jobs, or what to do when there is none. The differences are those of versions, in nats per
    token."""
    if not jobs:
        return '<p class="empty">No jobs yet. Upload a file of examples and start a training.</p>'
    return '<div class="jobs">' + "".join(_card(job, quantisation_differences) for job in jobs) + "</div>"


def fit_line(fit: Fit) -> str:
    """The verdict as a sentence below the plot; nothing before the first."""
    if not fit.sentence:
        return ""
    alarm = fit.verdict in (Fit.VERDICT_OVERFITTING, Fit.VERDICT_DIVERGED)
    stopped = " Patience ended the run early." if fit.stopped_early else ""
    return f'<p class="fit {"alarm" if alarm else ""}">{escape(fit.sentence)}{stopped}</p>'


def _card(job: TuningJob, quantisation_differences: Mapping[str, float]) -> str:
    metrics = job.latest_metrics
    done = metrics.step / metrics.total_steps if metrics.total_steps else 0.0
    if job.state == TuningJob.STATE_SUCCEEDED:
        done = 1.0
    technique = next((name for name, one in TECHNIQUES.items() if one == job.technique), "")
    return (
        f'<div class="job {state_word(job)}" data-job="{escape(job.name)}">'
        f'<div class="head"><b>{escape(job.adapter.removeprefix("adapters/"))}</b>'
        f'<span class="state">{state_word(job)}</span>'
        f'<span class="muted">{technique} on {escape(job.dataset.removeprefix("datasets/"))}</span></div>'
        f'<div class="bar"><div style="width:{done:.1%}"></div></div>'
        f'<div class="muted">{escape(_line(job, quantisation_differences))}</div>{_warnings(job)}</div>'
    )


def _warnings(job: TuningJob) -> str:
    """What to know of settings that will have less effect than they say."""
    return "".join(
        f'<div class="muted">{escape(about(one.field, one.description))}</div>' for one in job.warnings
    )


def _line(job: TuningJob, quantisation_differences: Mapping[str, float]) -> str:
    metrics = job.latest_metrics
    if job.state == TuningJob.STATE_FAILED:
        return job.failure.message
    if job.state == TuningJob.STATE_SUCCEEDED:
        line = f"loss {metrics.loss:.3f} · {job.adapter_version}"
        difference = quantisation_differences.get(job.adapter_version)
        if difference is None:
            return line
        return f"{line} · served in 16 bits: {difference:.3f} nats per token from the 4-bit base"
    if not metrics.total_steps:
        return "waiting for the first step" if job.state == TuningJob.STATE_RUNNING else ""
    return (
        f"step {metrics.step} of {metrics.total_steps} · loss {metrics.loss:.3f} · "
        f"{metrics.tokens_per_second:.0f} tok/s · {_duration(metrics.eta_seconds)} left"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
