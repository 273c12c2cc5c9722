"""Shows a tuning job while it runs: a bar with loss and time left, or lines where no terminal is."""

from collections.abc import Iterable
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from hotlora.command.output import duration, plain, sparkline
from hotlora.v1.adapter_service_pb2 import AdapterVersion
from hotlora.v1.tuning_service_pb2 import Metrics, Milestone, TuningEvent, TuningJob, WatchTuningJobResponse

_SPARKLINE_WIDTH: Final = 16
_MILESTONES: Final = {
    Milestone.KIND_LOADING: "loading data and model",
    Milestone.KIND_FIRST_FORWARD: "first forward pass",
    Milestone.KIND_FIRST_STEP: "first optimizer step done",
    Milestone.KIND_RESUMED: "resumed from a checkpoint",
    Milestone.KIND_SAVING: "saving the adapter",
    Milestone.KIND_PUBLISHED: "adapter published",
    Milestone.KIND_LOADING_BASE_MODEL: "loading the base model",
    Milestone.KIND_LOADING_START_VERSION: "loading the version that it starts from",
    Milestone.KIND_MEASURING_START: "measuring what training begins with",
    Milestone.KIND_LOADING_CHECKPOINT: "loading a checkpoint",
    Milestone.KIND_SAVING_CHECKPOINT: "saving a checkpoint",
    Milestone.KIND_MEASURING_CANARY: "measuring what the engine will be compared with",
    Milestone.KIND_WRITING: "writing what is published",
    Milestone.KIND_SEALING: "hashing what is published, and forcing it to disk",
}
_PLAIN_METRICS_PARTS: Final = 20
"""Without a terminal, figures are printed about this often in a run; a log does not need each step."""


class JobDisplay:
    """Shows what a watch brings. Use it as a context manager; `job` is the last known state of the job."""

    def __init__(self, console: Console) -> None:
        self.job = TuningJob()
        self._console = console
        self._losses: dict[int, float] = {}
        """By step: a watch that begins again, and a job that resumes, tell of some steps twice."""
        self._printed_part = -1
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}"),
            console=console,
            disable=not console.is_terminal,
            expand=True,
        )
        self._task: TaskID = self._progress.add_task("", total=None, figures="")

    def __enter__(self) -> "JobDisplay":
        self._progress.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._progress.stop()

    def show(self, update: WatchTuningJobResponse) -> None:
        """Takes one message of a watch."""
        if update.HasField("tuning_job"):
            self.job = update.tuning_job
            self._say(f"{self.job.name} is {_word(self.job.state)}")
            for line in warning_lines(self.job):
                self._note(line)
            if self.job.HasField("latest_metrics"):
                self._figures(self.job.latest_metrics)
        else:
            self._event(update.event)

    def _event(self, event: TuningEvent) -> None:
        match event.WhichOneof("event"):
            case "state_change":
                change = event.state_change
                self.job.state, self.job.attempt = change.state, change.attempt
                if change.HasField("failure"):
                    self.job.failure.CopyFrom(change.failure)
                    self._note(f"{change.failure.reason}: {change.failure.message}")
                self._say(_word(change.state) + (f", attempt {change.attempt}" if change.attempt > 1 else ""))
            case "metrics":
                self._figures(event.metrics)
            case "evaluation":
                evaluation = event.evaluation
                self._note(
                    f"step {evaluation.step}: loss {evaluation.eval_loss:.4f} on the"
                    f" {evaluation.rows} rows set aside"
                    + (f" ({evaluation.leaked_rows} trained on, too)" if evaluation.leaked_rows else "")
                    + (
                        f", task score {evaluation.task_score:.3f}"
                        if evaluation.HasField("task_score")
                        else ""
                    )
                )
            case "fit":
                self._note(f"step {event.fit.step}: {event.fit.sentence}")
            case "milestone":
                self._say(_MILESTONES.get(event.milestone.kind, "going on"))
            case _:
                pass  # A checkpoint: of no interest to somebody who watches.

    def _figures(self, metrics: Metrics) -> None:
        self._losses[metrics.step] = metrics.loss
        figures = (
            f"{metrics.step}/{metrics.total_steps}  loss {metrics.loss:.4f}"
            f" {sparkline(list(self._losses.values()), width=_SPARKLINE_WIDTH)}"
            f"  {metrics.tokens_per_second:.0f} tok/s  {duration(metrics.eta_seconds)} left"
        )
        self._progress.update(
            self._task,
            description="training",
            completed=metrics.step,
            total=metrics.total_steps,
            figures=figures,
        )
        part = metrics.step * _PLAIN_METRICS_PARTS // max(metrics.total_steps, 1)
        if not self._console.is_terminal and part != self._printed_part:
            self._printed_part = part
            self._console.print(f"step {figures}")

    def _say(self, words: str) -> None:
        """Where the job stands: beside the bar, or a line."""
        self._progress.update(self._task, description=plain(words))
        if not self._console.is_terminal:
            self._console.print(plain(words))

    def _note(self, words: str) -> None:
        """Something that stays: a line above the bar."""
        self._console.print(plain(words))


def follow(updates: Iterable[WatchTuningJobResponse], console: Console) -> TuningJob:
    """Shows a watch to its end and returns the job as it was then, as far as the watch told."""
    with JobDisplay(console) as display:
        for update in updates:
            display.show(update)
    return display.job


def warning_lines(job: TuningJob) -> list[str]:
    """What to know of the settings that the job was accepted with, a line each."""
    return [f"{one.field.removeprefix('hyperparameters.')}: {one.description}" for one in job.warnings]


def version_line(version: AdapterVersion) -> str:
    """Where a version stands, in one sentence, with the figures of its proof."""
    word = AdapterVersion.State.Name(version.state).removeprefix("STATE_")
    if version.state == AdapterVersion.STATE_FAILED:
        return f"{version.model} is FAILED: {version.failure.reason}: {version.failure.message}"
    if version.state != AdapterVersion.STATE_ACTIVE or not version.HasField("verification"):
        return f"{version.model} is {word}"
    proof = version.verification
    return (
        f"{version.model} is ACTIVE: over {proof.tokens} tokens the engine is"
        f" {proof.adapter_difference:.4f} nats from the trained adapter (at most {proof.tolerance:.4f})"
        f" and {proof.effect:.4f} from the base;"
        f" proven in {proof.seconds:.1f} s"
    )


def _word(state: TuningJob.State) -> str:
    return TuningJob.State.Name(state).removeprefix("STATE_")
