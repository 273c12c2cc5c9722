"""The commands below `datasets` and `adapters` with their options. Each loads what it needs when it runs."""

# ruff: noqa: PLC0415 -- gRPC and rich take longer to load than `--help` may take

from pathlib import Path
from typing import Annotated

import typer

from hotlora.command import options
from hotlora.command.options import Address, AsJson, Limit

datasets_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Training data.")
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Files of training rows.")
adapters_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Adapters and their versions.")


@datasets_app.command("list")
def datasets_list(limit: Limit = 50, address: Address = None, as_json: AsJson = False) -> None:
    """Lists datasets, newest first."""
    from hotlora.command import datasets

    datasets.list_datasets(address, limit=limit, as_json=as_json)


@datasets_app.command("upload")
def datasets_upload(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, show_default=False)],
    dataset_id: Annotated[
        str, typer.Option("--id", help="Default: from name and content.", show_default=False)
    ] = "",
    display_name: Annotated[str, typer.Option("--name", help="Free text.", show_default=False)] = "",
    row_format: options.RowFormat = None,
    mapping: options.Mapping = None,
    task: options.RowTask = None,
    drop_bad_rows: options.DropBadRows = False,
    base_model: options.BaseModel = "",
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Uploads a file of training rows: JSON Lines, JSON, CSV, Parquet, or gzip of those."""
    from hotlora.command import datasets
    from hotlora.command.reading import wishes

    datasets.upload(
        address,
        file,
        dataset_id=dataset_id,
        display_name=display_name,
        wishes=wishes(
            row_format=row_format,
            mapping=mapping,
            task=task,
            drop_bad_rows=drop_bad_rows,
            base_model=base_model,
        ),
        as_json=as_json,
    )


@datasets_app.command("import")
def datasets_import(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="hf:OWNER/NAME of the Hugging Face hub, or an absolute path on the service's machine.",
            show_default=False,
        ),
    ],
    config: Annotated[str, typer.Option(help="Of hf:. Default: its own.", show_default=False)] = "",
    split: Annotated[str, typer.Option(help="Of hf:. Default: train.", show_default=False)] = "",
    max_rows: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Of hf:, only the first so many; 0: all.")
    ] = 0,
    dataset_id: Annotated[str, typer.Option("--id", help="Default: one is made.", show_default=False)] = "",
    display_name: Annotated[
        str, typer.Option("--name", help="Default: the source.", show_default=False)
    ] = "",
    row_format: options.RowFormat = None,
    mapping: options.Mapping = None,
    task: options.RowTask = None,
    drop_bad_rows: options.DropBadRows = False,
    base_model: options.BaseModel = "",
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Has the service itself read a split of the Hugging Face hub, or a file that its operator allows."""
    from hotlora.command import datasets, names
    from hotlora.command.reading import wishes

    hub = names.hub_split(source, config=config, split=split, max_rows=max_rows)
    if hub is None and (config or split or max_rows):
        raise typer.BadParameter("--config, --split and --max-rows belong to hf:OWNER/NAME.")
    datasets.bring_in(
        address,
        hub or source,
        dataset_id=dataset_id,
        display_name=display_name or source,
        wishes=wishes(
            row_format=row_format,
            mapping=mapping,
            task=task,
            drop_bad_rows=drop_bad_rows,
            base_model=base_model,
        ),
        as_json=as_json,
    )


@datasets_app.command("show")
def datasets_show(
    dataset: Annotated[str, typer.Argument(show_default=False)],
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Shows a dataset."""
    from hotlora.command import datasets

    datasets.show(address, dataset, as_json=as_json)


@datasets_app.command("preview")
def datasets_preview(
    dataset: Annotated[str, typer.Argument(show_default=False)],
    rows: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="How many rows, up to 100.")] = 5,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Shows the first rows as the model will see them, trained parts marked."""
    from hotlora.command import datasets

    datasets.preview(address, dataset, max_rows=rows, as_json=as_json)


@datasets_app.command("delete")
def datasets_delete(
    dataset: Annotated[str, typer.Argument(show_default=False)],
    yes: options.Yes = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Deletes a dataset; its id is not usable again."""
    from hotlora.command import datasets

    options.confirm(f"Delete {dataset} for good?", yes=yes)
    datasets.delete(address, dataset, as_json=as_json)


@data_app.command("check")
def data_check(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, show_default=False)],
    row_format: options.RowFormat = None,
    mapping: options.Mapping = None,
    task: options.RowTask = None,
    base_model: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Directory. Default: the prepared one.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Looks at a file of training rows without any service; exit code 0 when every row is good."""
    from hotlora.command import checking
    from hotlora.command.reading import wishes

    wished = wishes(row_format=row_format, mapping=mapping, task=task)
    raise typer.Exit(checking.check(file, wishes=wished, base_model=base_model, as_json=as_json))


@adapters_app.command("list")
def adapters_list(limit: Limit = 50, address: Address = None, as_json: AsJson = False) -> None:
    """Lists adapters by name."""
    from hotlora.command import adapters

    adapters.list_adapters(address, limit=limit, as_json=as_json)


@adapters_app.command("versions")
def adapters_versions(
    adapter: Annotated[str, typer.Argument(show_default=False)],
    limit: Limit = 50,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Lists an adapter's versions, newest first."""
    from hotlora.command import adapters

    adapters.versions(address, adapter, limit=limit, as_json=as_json)


@adapters_app.command("show")
def adapters_show(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER[@N]", show_default=False)],
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Shows an adapter, or one version with the figures of its proof."""
    from hotlora.command import adapters

    adapters.show(address, adapter, as_json=as_json)


@adapters_app.command("load")
def adapters_load(
    version: Annotated[str, typer.Argument(metavar="ADAPTER@N", show_default=False)],
    watch: Annotated[bool, typer.Option(help="Follow it until it is ACTIVE.")] = True,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Has a version loaded and proven again."""
    from hotlora.command import adapters

    raise typer.Exit(adapters.load(address, version, follow=watch, as_json=as_json))


@adapters_app.command("unload")
def adapters_unload(
    version: Annotated[str, typer.Argument(metavar="ADAPTER@N", show_default=False)],
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Has a version taken out of the engine."""
    from hotlora.command import adapters

    adapters.unload(address, version, as_json=as_json)


@adapters_app.command("import")
def adapters_import(
    directory: Annotated[Path, typer.Argument(metavar="DIR", show_default=False)],
    adapter: Annotated[str, typer.Option("--adapter", help="Gets the version.", show_default=False)],
    base_model: Annotated[
        str,
        typer.Option(
            help="What it was trained on. Default: the adapter's, else the first that is served.",
            show_default=False,
        ),
    ] = "",
    on_service: Annotated[
        bool, typer.Option("--on-service", help="DIR is on the service's machine; nothing is uploaded.")
    ] = False,
    watch: Annotated[bool, typer.Option(help="Follow it until it is ACTIVE.")] = True,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Makes a version of a LoRA adapter that was trained elsewhere: a PEFT directory, safetensors only."""
    from hotlora.command import adapters

    source = str(directory) if on_service else directory
    raise typer.Exit(
        adapters.bring_in(address, source, adapter, base_model=base_model, follow=watch, as_json=as_json)
    )


@adapters_app.command("export")
def adapters_export(
    version: Annotated[str, typer.Argument(metavar="ADAPTER@N", show_default=False)],
    to: Annotated[Path, typer.Option("--to", help="A directory that does not exist.", show_default=False)],
    wanted: Annotated[
        options.ExportName | None,
        typer.Option(
            "--format",
            help="merged and gguf are whole models. Default: as published, peft or a whole model.",
            show_default=False,
        ),
    ] = None,
    gguf_type: Annotated[
        options.GgufTypeName | None,
        typer.Option(help="With --format gguf. Default: f16.", show_default=False),
    ] = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Writes a version's files as PEFT, transformers or llama.cpp reads them, with a model card."""
    from hotlora.command import adapters

    adapters.export(address, version, to, wanted=wanted, gguf_type=gguf_type, as_json=as_json)


@adapters_app.command("push")
def adapters_push(
    version: Annotated[str, typer.Argument(metavar="ADAPTER@N", show_default=False)],
    to: Annotated[
        str, typer.Option("--to", metavar="OWNER/NAME", help="Made if it is not there.", show_default=False)
    ],
    public: Annotated[
        bool, typer.Option("--public", help="Everybody may read it. Default: private, where it is made.")
    ] = False,
    wanted: Annotated[
        options.ExportName | None,
        typer.Option("--format", help="As for export. Default: as published.", show_default=False),
    ] = None,
    gguf_type: Annotated[
        options.GgufTypeName | None,
        typer.Option(help="With --format gguf. Default: f16.", show_default=False),
    ] = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Pushes what export writes to the Hugging Face hub, from here, with your own token (HF_TOKEN)."""
    from hotlora.command import adapters

    adapters.push(
        address, version, to, private=not public, wanted=wanted, gguf_type=gguf_type, as_json=as_json
    )


@adapters_app.command("delete")
def adapters_delete(
    adapter: Annotated[str, typer.Argument(show_default=False)],
    yes: options.Yes = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Deletes an adapter with all its versions; its name is not usable again."""
    from hotlora.command import adapters

    options.confirm(f"Delete {adapter} with all its versions for good?", yes=yes)
    adapters.delete(address, adapter, as_json=as_json)
