"""`jobs`, `watch`, `cancel`, `pause`, `resume`: looking at tuning jobs, stopping them, going on with them."""

from collections.abc import Sequence

from hotlora.command import job_display, names, output
from hotlora.command.calling import connected
from hotlora.command.failing import ExitCode
from hotlora.command.options import constant
from hotlora.v1.tuning_service_pb2 import Fit, ListTuningJobsResponse, TuningJob, WatchTuningJobResponse


def list_jobs(
    address: str | None, *, states: Sequence[str], adapter: str | None, limit: int, as_json: bool
) -> None:
    """Prints jobs, newest first."""
    wanted = [constant("STATE", name) for name in states]
    with connected(address) as client:
        jobs = output.newest(
            lambda page_size, token: client.list_tuning_jobs(
                page_size=page_size,
                page_token=token,
                states=wanted,
                adapter=names.adapter(adapter) if adapter else "",
            ),
            lambda page: page.tuning_jobs,
            limit=limit,
        )
    if as_json:
        output.print_json(ListTuningJobsResponse(tuning_jobs=jobs))
        return
    rows = [
        (
            names.short(job.name),
            output.state(TuningJob.State.Name(job.state)),
            names.short(job.adapter_version or job.adapter),
            names.short(job.dataset),
            _progress(job),
            f"{job.latest_metrics.loss:.4f}" if job.HasField("latest_metrics") else "",
            _fit(job),
            output.when(job.create_time),
        )
        for job in jobs
    ]
    columns = ("JOB", "STATE", "ADAPTER", "DATASET", "STEP", "LOSS", "FIT", "CREATED")
    output.table(columns, rows, empty="There are no jobs. Start one with `hotlora train`.")


def show_job(address: str | None, name: str, *, as_json: bool) -> None:
    """Prints one job."""
    with connected(address) as client:
        job = client.get_tuning_job(names.job(name))
    if as_json:
        output.print_json(job)
        return
    settings = output.as_dict(job.hyperparameters)
    output.details(
        [
            ("job", names.short(job.name)),
            ("state", output.state(TuningJob.State.Name(job.state))),
            ("failure", f"{job.failure.reason}: {job.failure.message}" if job.HasField("failure") else ""),
            ("adapter", names.short(job.adapter_version or job.adapter)),
            ("base model", job.base_model),
            ("started from", names.short(job.start_version)),
            ("dataset", names.short(job.dataset)),
            ("step", _progress(job)),
            ("loss", f"{job.latest_metrics.loss:.4f}" if job.HasField("latest_metrics") else ""),
            ("best step", str(job.best_step) if job.best_step else ""),
            ("fit", job.fit.sentence),
            ("attempts", str(job.attempt)),
            ("created", output.when(job.create_time)),
            ("ended", output.when(job.end_time)),
            ("settings", ", ".join(f"{name} {value}" for name, value in settings.items() if value != [])),
            ("warnings", "; ".join(job_display.warning_lines(job))),
        ]
    )


def watch(address: str | None, name: str, *, after_sequence: int, as_json: bool) -> ExitCode:
    """Follows a job to its end. OK when it SUCCEEDED, FAILED when it did not."""
    with connected(address) as client:
        updates = client.watch_tuning_job(names.job(name), after_sequence)
        if as_json:
            state = TuningJob.STATE_UNSPECIFIED
            for update in updates:
                output.print_json(update)
                state = state_after(update) or state
        else:
            state = job_display.follow(updates, output.console()).state
    return ExitCode.OK if state == TuningJob.STATE_SUCCEEDED else ExitCode.FAILED


def state_after(update: WatchTuningJobResponse) -> TuningJob.State | None:
    """The job's state as this message tells it; None when it does not speak of states."""
    if update.HasField("tuning_job"):
        return update.tuning_job.state
    return update.event.state_change.state if update.event.HasField("state_change") else None


def cancel(address: str | None, name: str, *, as_json: bool) -> None:
    """Asks a job to stop."""
    with connected(address) as client:
        _say_where(client.cancel_tuning_job(names.job(name)), as_json=as_json)


def pause(address: str | None, name: str, *, as_json: bool) -> None:
    """Asks a job to pause."""
    with connected(address) as client:
        _say_where(client.pause_tuning_job(names.job(name)), as_json=as_json)


def resume(address: str | None, name: str, *, as_json: bool) -> None:
    """Puts a paused job back into the queue."""
    with connected(address) as client:
        _say_where(client.resume_tuning_job(names.job(name)), as_json=as_json)


def _say_where(job: TuningJob, *, as_json: bool) -> None:
    if as_json:
        output.print_json(job)
    else:
        word = TuningJob.State.Name(job.state).removeprefix("STATE_")
        output.console().print(f"{names.short(job.name)} is {word}.")


def _fit(job: TuningJob) -> str:
    """The verdict in a word or two, for a table."""
    return Fit.Verdict.Name(job.fit.verdict).removeprefix("VERDICT_") if job.HasField("fit") else ""


def _progress(job: TuningJob) -> str:
    if not job.HasField("latest_metrics"):
        return ""
    return f"{job.latest_metrics.step}/{job.latest_metrics.total_steps}"
