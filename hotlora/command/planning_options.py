"""The command `plan` with its options. It loads what it needs when it runs."""

# ruff: noqa: PLC0415 -- gRPC and rich take longer to load than `--help` may take

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hotlora.command import options
from hotlora.command.options import Address, AsJson, carried

_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[KMGT]i?B|B)?", re.IGNORECASE)
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_INT64_MAX = 2**63 - 1


class DeviceName(StrEnum):
    """What kind of device."""

    CPU = "cpu"
    CUDA = "cuda"


class ExampleName(StrEnum):
    """A model that the primer works out."""

    LLAMA_7B = "llama-7b"
    GPT2 = "gpt2"


def size(text: str) -> int:
    """Bytes of `24GB`, `24GiB` or a plain number."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no size; write 24GB, 24GiB or a number of bytes.")
    count = round(float(found["number"]) * _UNITS[(found["unit"] or "B").lower()])
    if count > _INT64_MAX:
        raise typer.BadParameter(f"{text!r} is out of range.")
    return count


def plan(
    source: Annotated[
        str,
        typer.Argument(metavar="FILE", help=f"{options.SOURCE_HELP} Or use --rows.", show_default=False),
    ] = "",
    rows: Annotated[
        int | None, typer.Option(min=1, max=100_000_000, help="Instead of a file.", show_default=False)
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=0, max=10**12, help="Of all --rows; 0: 128 for each.", show_default=False)
    ] = 0,
    longest_row: Annotated[
        int, typer.Option(min=0, max=131_072, help="Its tokens; 0: twice the mean.", show_default=False)
    ] = 0,
    example: Annotated[
        ExampleName | None, typer.Option(help="Plan a model of the primer.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Plan the model of this config.json.", show_default=False
        ),
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(
            parser=size, metavar="SIZE", help="Plan a device with so much, like 24GB.", show_default=False
        ),
    ] = None,
    device: Annotated[DeviceName, typer.Option(help="Kind of the device with --memory.")] = DeviceName.CUDA,
    teraflops: Annotated[
        float,
        typer.Option(
            min=0, max=10**6, help="What it does in matrix products; 0: not known.", show_default=False
        ),
    ] = 0.0,
    rank: Annotated[int | None, typer.Option(callback=carried, metavar="N", show_default=False)] = None,
    batch_size: Annotated[int | None, typer.Option(callback=carried, metavar="N", show_default=False)] = None,
    epochs: Annotated[int | None, typer.Option(callback=carried, metavar="N", show_default=False)] = None,
    row_format: options.RowFormat = None,
    mapping: options.Mapping = None,
    task: options.RowTask = None,
    drop_bad_rows: options.DropBadRows = False,
    base_model: options.BaseModel = "",
    probe: Annotated[
        bool, typer.Option("--probe", help="Measure this machine first: half a minute or more.")
    ] = False,
    technique: Annotated[
        options.TechniqueName, typer.Option(help="What a probe measures.")
    ] = options.TechniqueName.LORA,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Says what a training will need, in memory and time, and which technique to take."""
    from hotlora.command import planning, reading
    from hotlora.v1.planning_service_pb2 import DataDescription, DeviceDescription, PlanRequest
    from hotlora.v1.tuning_service_pb2 import Hyperparameters

    if rows is None and (tokens or longest_row):
        raise typer.BadParameter("--tokens and --longest-row belong to --rows.")
    if memory is None and teraflops:
        raise typer.BadParameter("--teraflops belongs to --memory.")
    wishes = reading.wishes(row_format=row_format, mapping=mapping, task=task, drop_bad_rows=drop_bad_rows)
    reading.refuse_without_effect(wishes, source)
    wishes.base_model = base_model
    request = PlanRequest(
        base_model=base_model,
        data=DataDescription(rows=rows, tokens=tokens, longest_row_tokens=longest_row) if rows else None,
        device=DeviceDescription(
            kind=options.constant("KIND", device), memory_bytes=memory, operations_per_second=teraflops * 1e12
        )
        if memory is not None
        else None,
        model=planning.model_of(config) if config else None,
        example=options.constant("EXAMPLE", example) if example else None,
        hyperparameters=Hyperparameters(rank=rank, batch_size=batch_size, epochs=epochs),
        probe=probe,
        probe_technique=options.constant("TECHNIQUE", technique),
    )
    planning.plan(address, source, request, wishes=wishes, as_json=as_json)
