"""`train`: a file goes in, a proven adapter version comes out."""

import hashlib
import re
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from hotlora import errors
from hotlora.calls import UPLOAD_LIMIT_BYTES
from hotlora.client import Client
from hotlora.command import job_display, names, output, reading
from hotlora.command.calling import connected, ended_by_ctrl_c
from hotlora.command.failing import ExitCode
from hotlora.command.options import constant
from hotlora.v1.adapter_service_pb2 import AdapterVersion
from hotlora.v1.dataset_service_pb2 import Dataset, HubSplit, UploadHeader
from hotlora.v1.tuning_service_pb2 import Hyperparameters, TuningJob

_DIGEST_CHARACTERS: Final = 12
"""Of the file's SHA-256 in a derived dataset id: the same file gets the same id, another file another."""
_STEM_CHARACTERS: Final = 40
_NAME_CHARACTERS: Final = 200
"""Of a display name, as many as the service takes."""


def train(
    address: str | None,
    source: str,
    *,
    adapter: str,
    base_model: str,
    dataset_id: str,
    technique: str | None,
    objective: str | None,
    settings: Hyperparameters,
    wishes: UploadHeader,
    evaluate_on: str,
    start_version: str,
    request_id: str | None,
    follow: bool,
    as_json: bool,
) -> ExitCode:
    """Brings the file in unless `source` names a dataset, creates the job, follows it to an ACTIVE version.

    Without a technique, the service takes its default, or that of the start version.
    """
    console = output.console()
    with connected(address) as client:
        shown = None if as_json else console
        wishes.base_model = base_model or _other_base(client, adapter)
        dataset = dataset_of(client, source, shown, dataset_id=dataset_id, wishes=wishes)
        evaluation_dataset = dataset_of(client, evaluate_on, shown, wishes=wishes)
        job = client.create_tuning_job(
            dataset=dataset,
            adapter_id=adapter,
            base_model=base_model,
            technique=constant("TECHNIQUE", technique or "unspecified"),
            objective=constant("OBJECTIVE", objective or "unspecified"),
            hyperparameters=settings,
            request_id=request_id,
            evaluation_dataset=evaluation_dataset,
            start_version=names.version(start_version) if start_version else "",
        )
        if not follow:
            if as_json:
                output.print_json(job)
            else:
                console.print(f"{names.short(job.name)} is queued; `hotlora watch {names.short(job.name)}`.")
                for line in job_display.warning_lines(job):
                    console.print(output.plain(line))
            return ExitCode.OK
        try:
            with ended_by_ctrl_c(client):
                return _follow_job(client, job, console, as_json=as_json)
        except KeyboardInterrupt:
            if not as_json:
                console.print(f"The job goes on; `hotlora cancel {names.short(job.name)}` would stop it.")
            raise


def _follow_job(client: Client, job: TuningJob, console: Console, *, as_json: bool) -> ExitCode:
    updates = client.watch_tuning_job(job.name)
    if as_json:
        for update in updates:
            output.print_json(update)
    else:
        job_display.follow(updates, console)
    job = client.get_tuning_job(job.name)
    if job.state != TuningJob.STATE_SUCCEEDED:
        return ExitCode.FAILED
    return follow_version(client, job.adapter_version, console, as_json=as_json)


def follow_version(client: Client, name: str, console: Console, *, as_json: bool) -> ExitCode:
    """Follows a version until it is ACTIVE (OK), or FAILED or RETIRED (FAILED)."""
    version = AdapterVersion()
    for version in client.watch_adapter_version(name):
        if as_json:
            output.print_json({"adapterVersion": output.as_dict(version)})
        else:
            console.print(output.plain(job_display.version_line(version)))
    if version.state != AdapterVersion.STATE_ACTIVE:
        return ExitCode.FAILED
    if not as_json:
        console.print(f"Ask it: `hotlora compare {version.model}`")
        console.print(f"Whether it helped: `hotlora evaluations --adapter {version.model}`")
    return ExitCode.OK


def _other_base(client: Client, adapter: str) -> str:
    """The base model of an adapter that is there already; empty where that is the default one, or none."""
    try:
        base_model = client.get_adapter(names.adapter(adapter)).base_model
    except errors.HotloraError:  # whatever is wrong with the name, the job will say
        return ""
    models = client.list_models().models
    return base_model if models and base_model != models[0].id else ""


def dataset_of(
    client: Client,
    source: str,
    console: Console | None,
    *,
    dataset_id: str = "",
    wishes: UploadHeader | None = None,
) -> str:
    """datasets/{id} of what a person named: that, a file to upload, hf:OWNER/NAME to import, or nothing."""
    if reading.is_kept(source):
        return source
    hub = names.hub_split(source)
    if hub is None:
        return upload(client, Path(source), dataset_id=dataset_id, console=console, wishes=wishes).name
    return bring_in(client, hub, source, dataset_id=dataset_id, console=console, wishes=wishes).name


def bring_in(
    client: Client,
    source: str | HubSplit,
    display_name: str,
    *,
    dataset_id: str,
    console: Console | None,
    wishes: UploadHeader | None,
) -> Dataset:
    """Has the service read a path on its own machine or a split of the hub. A long display name is cut."""
    dataset = client.import_dataset(
        source, dataset_id=dataset_id, display_name=display_name[:_NAME_CHARACTERS], wishes=wishes
    )
    _tell(dataset, console)
    return dataset


def upload(
    client: Client,
    path: Path,
    *,
    dataset_id: str,
    console: Console | None,
    display_name: str = "",
    wishes: UploadHeader | None = None,
) -> Dataset:
    """Uploads a file, with a bar where there is a console.

    Without an id, one is derived from the file and the wishes; a dataset that has the same bytes under it is
    used as it is.
    """
    size_bytes = path.stat().st_size
    # A file that will be refused by its size is not read: 2 GiB would take seconds.
    digest = _sha256(path) if not dataset_id and 0 < size_bytes <= UPLOAD_LIMIT_BYTES else ""
    identifier = dataset_id or (derived_id(path, digest, wishes) if digest else "")
    quiet = console is None or not console.is_terminal
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console, disable=quiet, transient=True) as progress:
        task = progress.add_task(f"uploading {output.plain(path.name)}", total=size_bytes)

        def send(under_id: str) -> Dataset:
            return client.upload_dataset(
                path,
                dataset_id=under_id,
                display_name=display_name or path.name[:_NAME_CHARACTERS],
                wishes=wishes,
                sent=lambda total_bytes: progress.update(task, completed=total_bytes),
            )

        try:
            dataset = send(identifier)
        except errors.AlreadyExists:
            if not digest:
                raise
            dataset = _same_bytes(client, f"datasets/{identifier}", digest) or send("")
    _tell(dataset, console)
    return dataset


def _tell(dataset: Dataset, console: Console | None) -> None:
    if console is not None:
        console.print(f"{dataset.name}: {dataset.rows:,} rows, {dataset.tokens:,} tokens")


def derived_id(path: Path, digest: str, wishes: UploadHeader | None = None) -> str:
    """A valid dataset id that tells the file's name and content, and how it was read."""
    if wishes is not None and wishes != UploadHeader():
        digest = hashlib.sha256(digest.encode() + wishes.SerializeToString(deterministic=True)).hexdigest()
    stem = re.sub(r"[^a-z0-9]+", "-", path.stem.lower())[:_STEM_CHARACTERS].strip("-")
    return f"{stem or 'dataset'}-{digest[:_DIGEST_CHARACTERS]}"


def _same_bytes(client: Client, name: str, digest: str) -> Dataset | None:
    """The dataset of that name if it holds the same file; None when it does not, or was deleted."""
    try:
        dataset = client.get_dataset(name)
    except errors.NotFound:
        return None
    return dataset if dataset.sha256 == digest else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
