"""`plan`: what a training will need, as tables."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.text import Text

from hotlora import errors
from hotlora.command import output, training
from hotlora.command.calling import connected
from hotlora.v1 import planning_service_pb2 as pb
from hotlora.v1.dataset_service_pb2 import UploadHeader
from hotlora.v1.tuning_service_pb2 import Technique

_TITLES: Final = {
    "TECHNIQUE_UNSPECIFIED": "none",
    "TECHNIQUE_LORA": "LoRA",
    "TECHNIQUE_QLORA": "QLoRA",
    "TECHNIQUE_PROMPT_TUNING": "prompt tuning",
    "TECHNIQUE_FULL": "full",
}
_SOURCES: Final = {
    pb.SPEED_SOURCE_UNSPECIFIED: "not known; ask for --probe",
    pb.SPEED_SOURCE_PROBE: "measured here",
    pb.SPEED_SOURCE_LIKENESS: "from another technique's probe",
    pb.SPEED_SOURCE_ARITHMETIC: "from --teraflops",
}
_CONFIG_NAMES: Final = {
    "layers": ("num_hidden_layers", "n_layer"),
    "hidden_size": ("hidden_size", "n_embd"),
    "attention_heads": ("num_attention_heads", "n_head"),
    "key_value_heads": ("num_key_value_heads",),
    "intermediate_size": ("intermediate_size", "n_inner"),
    "vocabulary_size": ("vocab_size",),
}
_OPTIONAL: Final = ("key_value_heads", "intermediate_size")


def plan(
    address: str | None, source: str, request: pb.PlanRequest, *, wishes: UploadHeader, as_json: bool
) -> None:
    """Prints a plan; a file is brought in first, as `train` would do."""
    with connected(address) as client:
        console = None if as_json else output.console()
        request.dataset = training.dataset_of(client, source, console, wishes=wishes)
        response = client.plan(request)
    if as_json:
        output.print_json(response)
        return
    _print(response, with_textbook=bool(request.example))


def model_of(path: Path) -> pb.ModelDescription:
    """The model that a config.json describes. Raises InvalidArgument naming what is missing."""
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise errors.InvalidArgument(f"{path} is not JSON: {error}", reason="BAD_CONFIG") from error
    if not isinstance(config, dict):
        raise errors.InvalidArgument(f"{path} is not a JSON object.", reason="BAD_CONFIG")
    numbers = {}
    for field, names in _CONFIG_NAMES.items():
        found = [config[name] for name in names if isinstance(config.get(name), int)]
        if found:
            numbers[field] = found[0]
        elif field not in _OPTIONAL:
            raise errors.InvalidArgument(
                f"{path} has no number called {' or '.join(names)}.", reason="BAD_CONFIG"
            )
    numbers.setdefault("intermediate_size", 4 * numbers["hidden_size"])
    try:
        return pb.ModelDescription(tied_embeddings=bool(config.get("tie_word_embeddings")), **numbers)
    except ValueError as error:
        raise errors.InvalidArgument(
            f"{path} has a number far out of range: {error}.", reason="BAD_CONFIG"
        ) from error


def _print(response: pb.PlanResponse, *, with_textbook: bool) -> None:
    console = output.console()
    device, data = response.device, response.data
    kind = pb.DeviceDescription.Kind.Name(device.kind).removeprefix("KIND_")
    output.details(
        [
            ("model", f"{response.base_model or 'described'}, {response.parameters:,} parameters"),
            ("data", f"{data.rows:,} rows, {data.tokens:,} tokens, longest {data.longest_row_tokens:,}"),
            (
                "device",
                f"{kind}, {output.size(device.memory_bytes)}, {output.size(device.available_bytes)} free",
            ),
        ]
    )
    console.print()
    techniques = response.techniques
    output.table(("", *(_title(one.technique) for one in techniques)), _rows(techniques), empty="")
    if with_textbook:
        console.print()
        columns = ("TECHNIQUE", "TERM", "PRIMER", "BY ITS RULE", "REALLY", "WHY")
        output.table(columns, _textbook_rows(techniques), empty="")
    recommended = response.recommendation
    for one in techniques:
        if one.technique == recommended.technique:
            console.print(f"\nSettings of {_title(recommended.technique)}:")
            output.table(
                ("SETTING", "VALUE", "WHY"),
                [(reason.field, f"{reason.value:g}", reason.reason) for reason in one.reasons],
                empty="All of them were given.",
            )
    console.print()
    for one in techniques:
        if one.unservable:
            console.print(output.plain(f"{_title(one.technique)} could not be served: {one.unservable}"))
    verdict = "" if recommended.fits or not recommended.technique else ", but it does not fit"
    console.print(f"Recommended: {_title(recommended.technique)}{verdict}")
    for reason in recommended.reasons:
        console.print(f"- {output.plain(reason)}")


def _rows(techniques: Sequence[pb.TechniquePlan]) -> list[tuple[str | Text, ...]]:
    rows: list[tuple[str | Text, ...]] = []
    for place, line in enumerate(techniques[0].memory):
        rows.append((_part(line.part), *(output.size(one.memory[place].bytes) for one in techniques)))
    rows.append(
        (
            Text("total", style="bold"),
            *(Text(output.size(one.total_bytes), style="bold") for one in techniques),
        )
    )
    rows.append(
        (
            "fits",
            *(Text("yes", style="green") if one.fits else Text("no", style="red") for one in techniques),
        )
    )
    if any(one.unservable for one in techniques):
        rows.append(("served", *("no" if one.unservable else "yes" for one in techniques)))
    rows.append(("trained", *(f"{one.trained_parameters:,}" for one in techniques)))
    rows.append(("steps", *(f"{one.steps:,}" for one in techniques)))
    rows.append(("tokens", *(f"{one.tokens:,}" for one in techniques)))
    rows.append(
        (
            "time",
            *(output.duration(one.seconds) if one.HasField("seconds") else "" for one in techniques),
        )
    )
    rows.append(("speed", *(_SOURCES.get(one.speed_source, "") for one in techniques)))
    return rows


def _textbook_rows(techniques: Sequence[pb.TechniquePlan]) -> list[tuple[str | Text, ...]]:
    return [
        (
            _title(one.technique),
            _part(line.part),
            output.size(line.printed_bytes) if line.HasField("printed_bytes") else "",
            output.size(line.bytes),
            output.size(line.real_bytes),
            line.reality,
        )
        for one in techniques
        for line in one.textbook
    ]


def _title(technique: Technique) -> str:
    name = Technique.Name(technique)
    return _TITLES.get(name, name)


def _part(part: pb.MemoryPart) -> str:
    return pb.MemoryPart.Name(part).removeprefix("MEMORY_PART_").lower()
