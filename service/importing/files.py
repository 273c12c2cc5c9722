"""What may be wrong with PEFT's two files, told before any library reads them. Pure but for reading them.

Only what vLLM serves as PEFT means it is accepted. What the modules of the base are exactly is left to
`trainer.importing`, which has the base in memory.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.errors import FieldViolation
from service.jsonshape import Json, count, mapping, number, text
from trainer.importing import CONFIG_FILE, WEIGHTS_FILE
from trainer.planning.shape import Linear
from trainer.tensor_headers import TensorHeader, TensorHeaderError, read_headers

MAX_BYTES: Mapping[str, int] = {CONFIG_FILE: 1 << 20, WEIGHTS_FILE: 4 << 30}
_MAX_TENSORS = 100_000
_MAX_HEADER_BYTES = 32 << 20
_SIZES = {"BF16": 2, "F16": 2, "F32": 4}
_TENSOR = re.compile(r"base_model\.model\.(?P<module>[A-Za-z0-9_.]+)\.(?P<matrix>lora_[AB])\.weight")
_LAYER = re.compile(r"\.(\d+)\.")
_EMPTY: Sequence[object] = (None, False, "", [], {}, 0)
_MUST_BE_UNSET = {
    "use_dora": "DoRA is not served; train without it",
    "lora_bias": "biases of LoRA are not served; train without them",
    "modules_to_save": "modules that were trained whole are not served; train LoRA alone",
    "rank_pattern": "ranks of single modules are not served; one rank for all is",
    "alpha_pattern": "an alpha of single modules is not served; one alpha for all is",
    "trainable_token_indices": "trained tokens are not served; train LoRA alone",
    "target_parameters": "adapters on bare parameters are not served; those on linear layers are",
    "layer_replication": "repeated layers are not served; train on the base model as it is",
    "alora_invocation_tokens": "activated LoRA is not served; train without it",
    "use_qalora": "QA-LoRA is not served; train without it",
}
_NEEDLESS_INITS = frozenset({"pissa", "olora", "loftq", "corda", "eva"})
"""Ways to begin that may change the base's own weights, so that the adapter fits no other."""


@dataclass(frozen=True, kw_only=True)
class Servable:
    """What an adapter has to fit."""

    max_rank: int
    linears: tuple[Linear, ...]
    """Of the base; empty where its files do not tell."""
    layers: int


def problems(directory: Path, servable: Servable) -> list[FieldViolation]:
    """All that is wrong with the two files in a directory, which are there and not too large. Raises
    OSError."""
    rank, found = None, []
    try:
        config = mapping(json.loads((directory / CONFIG_FILE).read_bytes()))
        rank = count(config["r"])
        found = list(_of_config(config, servable))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        found = [_wrong(CONFIG_FILE, f"is not the configuration of a LoRA adapter: {error}")]
    return [*found, *_of_weights(directory / WEIGHTS_FILE, rank, servable)]


def _of_config(config: Json, servable: Servable) -> Iterator[FieldViolation]:
    def wrong(name: str, rule: str) -> FieldViolation:
        return _wrong(f"{CONFIG_FILE}.{name}", rule)

    if config.get("peft_type") != "LORA":
        yield wrong("peft_type", f"is {config.get('peft_type')!r}; LORA can be imported")
    if not 1 <= count(config["r"]) <= servable.max_rank:
        yield wrong("r", f"is {config['r']}; the engine serves ranks from 1 to {servable.max_rank}")
    if not (math.isfinite(number(config["lora_alpha"])) and number(config["lora_alpha"]) > 0):
        yield wrong("lora_alpha", f"is {config['lora_alpha']}; a finite number above 0 is needed")
    if not isinstance(config.get("use_rslora", False), bool):
        yield wrong("use_rslora", "must be true or false")
    if text(config.get("bias") or "none") != "none":
        yield wrong("bias", f"is {config['bias']!r}; only 'none' is served")
    for name, rule in _MUST_BE_UNSET.items():
        if config.get(name) not in _EMPTY:
            yield wrong(name, rule)
    begin = config.get("init_lora_weights")
    if isinstance(begin, str) and any(begin.lower().startswith(name) for name in _NEEDLESS_INITS):
        yield wrong("init_lora_weights", f"is {begin!r}, which changes the base model's own weights")
    targets, known = config.get("target_modules"), {linear.name for linear in servable.linears}
    if isinstance(targets, list) and known:
        missing = sorted({text(name).rpartition(".")[2] for name in targets} - known)
        if missing:
            rule = f"names {', '.join(missing)}; the base model has {', '.join(sorted(known))}"
            yield wrong("target_modules", rule)


def _of_weights(path: Path, rank: int | None, servable: Servable) -> Iterator[FieldViolation]:
    try:
        with path.open("rb") as file:
            if int.from_bytes(file.read(8), "little") > _MAX_HEADER_BYTES:
                raise TensorHeaderError(f"its header is longer than {_MAX_HEADER_BYTES} bytes")
        headers = read_headers(path)
    except (TensorHeaderError, ValueError) as error:
        yield _wrong(WEIGHTS_FILE, str(error).replace(f"{path} ", ""))
        return
    if len(headers) > _MAX_TENSORS:
        yield _wrong(WEIGHTS_FILE, f"has {len(headers)} tensors; {_MAX_TENSORS} are the most")
        return
    end = min(header.begin for header in headers.values())
    for name, header in sorted(headers.items(), key=lambda item: item[1].begin):
        if header.begin != end or header.end < header.begin:
            yield _wrong(WEIGHTS_FILE, f"has a gap or an overlap before {name[:200]!r}")
            return
        end = header.end
    for name, header in headers.items():
        for rule in _of_tensor(name, header, headers, rank, servable):
            yield _wrong(WEIGHTS_FILE, f"{name[:200]}: {rule}")


def _of_tensor(
    name: str,
    header: TensorHeader,
    all_of_them: Mapping[str, TensorHeader],
    rank: int | None,
    to_fit: Servable,
) -> Iterator[str]:
    match = _TENSOR.fullmatch(name)
    if match is None:
        yield "is no lora_A or lora_B of a linear layer, which alone are served"
        return
    if header.dtype not in _SIZES:
        yield f"has numbers of kind {header.dtype[:20]}; {', '.join(_SIZES)} are accepted"
    elif (
        len(header.shape) != 2 or math.prod(header.shape) * _SIZES[header.dtype] != header.end - header.begin
    ):
        yield f"has shape {list(header.shape)[:8]}, which is no matrix of its length"
        return
    other = {"lora_A": "lora_B", "lora_B": "lora_A"}[match["matrix"]]
    if f"base_model.model.{match['module']}.{other}.weight" not in all_of_them:
        yield f"there is no {other} beside it"
    linear = next((one for one in to_fit.linears if one.name == match["module"].rpartition(".")[2]), None)
    if linear is None and to_fit.linears:
        yield "the base model has no such linear layer"
    layer = _LAYER.search(f".{match['module']}.")
    if to_fit.layers and layer and int(layer[1][:9]) >= to_fit.layers:
        yield f"the base model has {to_fit.layers} layers"
    if linear is None or rank is None:
        return
    fits = (rank, linear.inputs) if match["matrix"] == "lora_A" else (linear.outputs, rank)
    if header.shape != fits:
        yield f"is {list(header.shape)[:8]}; {list(fits)} fits the base model and rank {rank}"


def _wrong(field: str, rule: str) -> FieldViolation:
    return FieldViolation(field=field, description=rule)
