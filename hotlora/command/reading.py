"""How a file of training rows is to be understood, as the options say it and as the API takes it."""

from collections.abc import Sequence
from pathlib import Path

import typer

from hotlora.command.options import constant
from hotlora.v1.dataset_service_pb2 import BAD_ROWS_DROP, UploadHeader


def wishes(
    *,
    row_format: str | None,
    mapping: Sequence[str] | None,
    task: str | None,
    drop_bad_rows: bool = False,
    base_model: str = "",
) -> UploadHeader:
    """The wishes of an upload. Raises typer.BadParameter for a mapping that is not KEY=COLUMN."""
    pairs = [each.partition("=") for each in mapping or ()]
    for key, separator, column in pairs:
        if not key or not separator or not column:
            raise typer.BadParameter(f"{key!r} is not KEY=COLUMN, for example prompt=question.")
    return UploadHeader(
        format=constant("FORMAT", row_format) if row_format else None,
        mapping={key: column for key, _, column in pairs},
        task=constant("TASK", task) if task else None,
        bad_rows=BAD_ROWS_DROP if drop_bad_rows else None,
        base_model=base_model,
    )


def is_kept(source: str) -> bool:
    """Whether a person named a dataset that the service has: nothing is read. A file of that name wins."""
    return not source or (source.startswith("datasets/") and not Path(source).is_file())


def refuse_without_effect(wished: UploadHeader, *sources: str) -> None:
    """Raises typer.BadParameter for wishes where no file is read."""
    if wished != UploadHeader() and all(map(is_kept, sources)):
        raise typer.BadParameter("--format, --map, --task and --drop-bad-rows belong to a file that is read.")
