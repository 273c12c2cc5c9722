"""`adapters list | versions | show | load | unload | import | export | push | delete`."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.text import Text

from hotlora import hub
from hotlora.command import job_display, names, output, training
from hotlora.command.calling import connected
from hotlora.command.failing import ExitCode
from hotlora.command.options import constant
from hotlora.v1.adapter_service_pb2 import (
    AdapterVersion,
    ListAdaptersResponse,
    ListAdapterVersionsResponse,
)
from hotlora.v1.tuning_service_pb2 import Technique


def list_adapters(address: str | None, *, limit: int, as_json: bool) -> None:
    """Prints adapters by name."""
    with connected(address) as client:
        found = output.newest(
            lambda page_size, token: client.list_adapters(page_size=page_size, page_token=token),
            lambda page: page.adapters,
            limit=limit,
        )
    if as_json:
        output.print_json(ListAdaptersResponse(adapters=found))
        return
    rows = [
        (
            names.short(adapter.name),
            str(adapter.active_version or "none"),
            str(adapter.latest_version or "none"),
            adapter.base_model,
            output.when(adapter.create_time),
        )
        for adapter in found
    ]
    columns = ("ADAPTER", "ACTIVE", "NEWEST", "BASE MODEL", "CREATED")
    output.table(columns, rows, empty="There are no adapters. Train one with `hotlora train`.")


def versions(address: str | None, name: str, *, limit: int, as_json: bool) -> None:
    """Prints the versions of an adapter, newest first."""
    with connected(address) as client:
        found = output.newest(
            lambda page_size, token: client.list_adapter_versions(
                names.adapter(name), page_size=page_size, page_token=token
            ),
            lambda page: page.adapter_versions,
            limit=limit,
        )
    if as_json:
        output.print_json(ListAdapterVersionsResponse(adapter_versions=found))
        return
    rows = [
        (
            version.model,
            output.state(AdapterVersion.State.Name(version.state)),
            str(version.rank),
            output.size(version.size_bytes),
            names.short(version.tuning_job),
            output.when(version.create_time),
            version.failure.reason,
        )
        for version in found
    ]
    columns = ("VERSION", "STATE", "RANK", "SIZE", "JOB", "CREATED", "FAILURE")
    output.table(columns, rows, empty=f"{name} has no versions yet.")


def show(address: str | None, name: str, *, as_json: bool) -> None:
    """Prints an adapter, or one version of it when the name says which."""
    with connected(address) as client:
        if names.is_version(name):
            version = client.get_adapter_version(names.version(name))
            if as_json:
                output.print_json(version)
            else:
                output.details(_version_fields(version))
            return
        adapter = client.get_adapter(names.adapter(name))
    if as_json:
        output.print_json(adapter)
        return
    output.details(
        [
            ("adapter", names.short(adapter.name)),
            ("base model", adapter.base_model),
            ("active version", str(adapter.active_version or "none")),
            ("newest version", str(adapter.latest_version or "none")),
            ("created", output.when(adapter.create_time)),
        ]
    )


def _version_fields(version: AdapterVersion) -> Iterable[tuple[str, str | Text]]:
    technique = Technique.Name(version.technique).removeprefix("TECHNIQUE_").lower()
    yield "version", version.model
    yield "state", output.state(AdapterVersion.State.Name(version.state))
    if version.HasField("failure"):
        yield "failure", f"{version.failure.reason}: {version.failure.message}"
    yield "job", names.short(version.tuning_job)
    yield "technique", f"{technique}, rank {version.rank}"
    yield "size", output.size(version.size_bytes)
    yield "digest", version.digest
    yield "created", output.when(version.create_time)
    yield "active", output.when(version.active_time)
    if version.HasField("verification"):
        proof = version.verification
        yield "proof", f"over {proof.tokens} tokens, in {proof.seconds:.1f} s; nats per token:"
        yield "  from the trained", f"{proof.adapter_difference:.4f} (at most {proof.tolerance:.4f})"
        yield "  from the base", f"{proof.effect:.4f} (in training {proof.trained_effect:.4f})"
        if proof.HasField("strength"):
            yield (
                "  strength",
                f"{proof.strength:.2f} ± {proof.strength_error:.2f} (1: all of what was trained)",
            )
        yield "  noise", f"{proof.noise:.4f}"
        if proof.HasField("quantisation_difference"):
            served = (
                f"{proof.quantisation_difference:.4f} (served on the 16-bit base, trained on the 4-bit one)"
            )
            yield "  from the 4-bit", served


def load(address: str | None, name: str, *, follow: bool, as_json: bool) -> ExitCode:
    """Has a version loaded and proven again; follows it until it is ACTIVE."""
    with connected(address) as client:
        version = client.load_adapter_version(names.version(name))
        if follow:
            return training.follow_version(client, version.name, output.console(), as_json=as_json)
    _print_version(version, as_json=as_json)
    return ExitCode.OK


def unload(address: str | None, name: str, *, as_json: bool) -> None:
    """Has a version taken out of the engine."""
    with connected(address) as client:
        version = client.unload_adapter_version(names.version(name))
    _print_version(version, as_json=as_json)


def bring_in(
    address: str | None, source: Path | str, adapter: str, *, base_model: str, follow: bool, as_json: bool
) -> ExitCode:
    """Makes the next version of an adapter of a PEFT directory; follows it until it is ACTIVE."""
    with connected(address) as client:
        adapter_id = names.short(names.adapter(adapter))
        version = client.import_adapter_version(source, adapter_id, base_model=base_model)
        if follow:
            return training.follow_version(client, version.name, output.console(), as_json=as_json)
    _print_version(version, as_json=as_json)
    return ExitCode.OK


def export(
    address: str | None,
    name: str,
    directory: Path,
    *,
    wanted: str | None,
    gguf_type: str | None,
    as_json: bool,
) -> None:
    """Writes a version's files to a directory that does not exist yet."""
    with connected(address) as client:
        client.export_adapter_version(
            names.version(name),
            directory,
            format=constant("FORMAT", wanted or "unspecified"),
            gguf_type=constant("GGUF_TYPE", gguf_type or "unspecified"),
        )
    files = sorted(file.name for file in directory.iterdir())
    if as_json:
        output.print_json({"directory": str(directory), "files": files})
    else:
        output.console().print(output.plain(f"{names.short(names.version(name))} is in {directory}: "))
        output.console().print(output.plain(", ".join(files)))


def push(
    address: str | None,
    name: str,
    repository: str,
    *,
    private: bool,
    wanted: str | None,
    gguf_type: str | None,
    as_json: bool,
) -> None:
    """Writes a version's files to the Hugging Face hub."""
    version = names.version(name)
    with TemporaryDirectory() as beside, connected(address) as client:
        directory = client.export_adapter_version(
            version,
            Path(beside) / "export",
            format=constant("FORMAT", wanted or "unspecified"),
            gguf_type=constant("GGUF_TYPE", gguf_type or "unspecified"),
        )
        message = f"Upload {names.short(version)} of Hotlora"
        url = hub.push(directory, repository, private=private, message=message)
    if as_json:
        output.print_json({"repository": repository, "commitUrl": url})
    else:
        output.console().print(output.plain(f"{names.short(version)} is in {repository}: {url}"))


def delete(address: str | None, name: str, *, as_json: bool) -> None:
    """Deletes an adapter with all its versions."""
    with connected(address) as client:
        client.delete_adapter(names.adapter(name))
    if as_json:
        output.print_json({"deleted": names.adapter(name)})
    else:
        output.console().print(f"{names.adapter(name)} is deleted.")


def _print_version(version: AdapterVersion, *, as_json: bool) -> None:
    if as_json:
        output.print_json(version)
    else:
        output.console().print(output.plain(job_display.version_line(version)))
