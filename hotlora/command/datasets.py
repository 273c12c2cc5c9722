"""`datasets list | upload | import | show | preview | delete`."""

from pathlib import Path

from hotlora.command import names, output, report_display, training
from hotlora.command.calling import connected
from hotlora.v1.dataset_service_pb2 import Dataset, HubSplit, ListDatasetsResponse, UploadHeader


def list_datasets(address: str | None, *, limit: int, as_json: bool) -> None:
    """Prints datasets, newest first."""
    with connected(address) as client:
        found = output.newest(
            lambda page_size, token: client.list_datasets(page_size=page_size, page_token=token),
            lambda page: page.datasets,
            limit=limit,
        )
    if as_json:
        output.print_json(ListDatasetsResponse(datasets=found))
        return
    rows = [
        (
            names.short(dataset.name),
            f"{dataset.rows:,}",
            f"{dataset.tokens:,}",
            output.size(dataset.size_bytes),
            output.when(dataset.create_time),
            dataset.display_name,
        )
        for dataset in found
    ]
    columns = ("DATASET", "ROWS", "TOKENS", "SIZE", "CREATED", "NAME")
    output.table(columns, rows, empty="There are no datasets. Add one with `hotlora datasets upload FILE`.")


def upload(
    address: str | None,
    path: Path,
    *,
    dataset_id: str,
    display_name: str,
    wishes: UploadHeader,
    as_json: bool,
) -> None:
    """Uploads a file and prints what was found in it."""
    with connected(address) as client:
        console = None if as_json else output.console()
        dataset = training.upload(
            client, path, dataset_id=dataset_id, console=console, display_name=display_name, wishes=wishes
        )
    _show_found(dataset, as_json=as_json)


def bring_in(
    address: str | None,
    source: str | HubSplit,
    *,
    dataset_id: str,
    display_name: str,
    wishes: UploadHeader,
    as_json: bool,
) -> None:
    """Has the service read a path of its own or a split of the hub, and prints what was found there."""
    with connected(address) as client:
        console = None if as_json else output.console()
        dataset = training.bring_in(
            client, source, display_name, dataset_id=dataset_id, console=console, wishes=wishes
        )
    _show_found(dataset, as_json=as_json)


def _show_found(dataset: Dataset, *, as_json: bool) -> None:
    if as_json:
        output.print_json(dataset)
    else:
        report_display.show(dataset)


def show(address: str | None, name: str, *, as_json: bool) -> None:
    """Prints one dataset."""
    with connected(address) as client:
        dataset = client.get_dataset(names.dataset(name))
    if as_json:
        output.print_json(dataset)
        return
    _show(dataset)
    report_display.show(dataset)


def _show(dataset: Dataset) -> None:
    output.details(
        [
            ("dataset", names.short(dataset.name)),
            ("name", dataset.display_name),
            ("rows", f"{dataset.rows:,}"),
            ("tokens", f"{dataset.tokens:,}, the longest row {dataset.longest_row_tokens:,}"),
            ("counted by", dataset.base_model or "not known"),
            ("size", output.size(dataset.size_bytes)),
            ("sha256", dataset.sha256),
            ("created", output.when(dataset.create_time)),
        ]
    )


def preview(address: str | None, name: str, *, max_rows: int, as_json: bool) -> None:
    """Prints the first rows as the base model will see them, with the trained parts marked."""
    with connected(address) as client:
        response = client.preview_dataset(names.dataset(name), max_rows=max_rows)
    if as_json:
        output.print_json(response)
        return
    report_display.show_rows(response.rows)


def delete(address: str | None, name: str, *, as_json: bool) -> None:
    """Deletes a dataset."""
    with connected(address) as client:
        client.delete_dataset(names.dataset(name))
    if as_json:
        output.print_json({"deleted": names.dataset(name)})
    else:
        output.console().print(f"{names.dataset(name)} is deleted.")
