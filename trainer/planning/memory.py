"""The most memory that a run of our trainer holds, line by line, before it runs.

The textbook's sum (weights + gradients + optimizer states + activations + batch + overhead) with the terms of
the loop as it is: 32-bit adapter matrices beside a frozen base in the arithmetic's own type, no recomputation
in the backward pass, rows packed up to a budget of tokens, logits of trained positions alone, in two copies.
Standard library only; it knows neither speed nor what to recommend.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from trainer.config import Technique
from trainer.pacing import LOGITS_AT_ONCE
from trainer.planning.duration import Data
from trainer.planning.shape import ModelShape

WEIGHT_BYTES = 4
MOMENT_BYTES = 8
"""AdamW keeps two 32-bit moments a trained parameter."""
FOUR_BIT_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""NF4 with double quantisation: half a byte, one byte a block of 64 for its scale, and 4 for 256 of those."""
ERROR_SHARE = 0.2
"""Of a total, by which a run may need more or less: the worst of what `benchmarks.planning` measures, whose
median is half of that. Whoever refuses a run for its memory allows for it."""
RUNTIME_BYTES = {"cpu": 560_000_000, "cuda": 2 * 32 * 1024**2}
"""Of a trainer without a model, by the kind of its device. On a CPU interpreter, libraries and tokenizer: 540
MB with torch 2.13, and more is imported on the way; a probe looks itself. On a GPU what cuBLAS works in:
torch gives it 32 MiB for each of the two threads that multiply, the forward and the backward one (on Hopper
and newer; less before); the plans of tiny models on an H100 were 48 to 64 MiB too small without."""
_KEPT_BY_ALLOCATOR = 0.75
"""Of the activations, measured: on a CPU freed blocks below 32 MiB stay with the process, and those of the
next pass do not fit all of the gaps. It is less in the first passes of a run and stands still after a few."""
_CHUNK_BYTES = 4 * LOGITS_AT_ONCE
"""Of the logits that the loss holds in 32 bits at a time; two such pieces exist at once, and a third one
where the arithmetic is in 16 bits."""
_CHECKPOINT_BYTES = 4 + 2 * 8
"""Of a trained parameter while a checkpoint is made: its weight's bytes, and those of its moments twice."""
_FILE_BYTES = 2
"""Of a weight on disk; while it is read, the file's pages count as ours."""


class Part(StrEnum):
    """Where memory goes."""

    WEIGHTS = "weights"
    ADAPTER = "adapter"
    GRADIENTS = "gradients"
    OPTIMIZER = "optimizer"
    ACTIVATIONS = "activations"
    BATCH = "batch"
    OVERHEAD = "overhead"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One term of the sum."""

    part: Part
    bytes: int
    how: str
    """How it comes about, for a person."""


@dataclass(frozen=True, kw_only=True)
class Footing:
    """What a run stands on: kind of device, arithmetic, and what the process holds without any model."""

    device: str
    """`cpu` or `cuda`."""
    number_bytes: int
    """Of a number of the arithmetic: 4 for float32, 2 for bfloat16."""
    runtime_bytes: int
    """Interpreter and libraries on a CPU; what cuBLAS has on a GPU, whose allocator does not see those."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """The largest forward pass of a run, and what is trained in it."""

    tokens: int
    """Of all rows in the pass, padding counted."""
    trained_tokens: int
    """Those with logits and loss."""
    rows: int
    longest_row: int
    rank: int = 16
    target_modules: tuple[str, ...] = ()
    dropout: float = 0.05
    virtual_tokens: int = 20


def largest_pass(data: Data, *, batch_size: int, budget: int) -> tuple[int, int, int]:
    """Tokens, trained tokens and rows of the largest pass that a step of `batch_size` examples can make.

    The longest examples of a step go first, so a pass is full unless the whole step is smaller; one above the
    budget stands alone. A pair is in one pass with both of its rows, which are thought to be equally long.
    """
    longest = max(1, min(data.sides * data.longest_row, data.tokens))
    step = longest + (batch_size - 1) * data.mean_row
    tokens = longest if longest >= budget else min(budget, math.ceil(step))
    examples = max(1, min(batch_size, round(tokens / max(1.0, data.mean_row))))
    return tokens, max(1, math.ceil(tokens * data.trained_share)), data.sides * examples


def memory(
    shape: ModelShape, technique: Technique, load: Load, footing: Footing, *, training_only: bool = False
) -> tuple[Line, ...]:
    """The lines of a run; their sum is the most that it holds at a time.

    With `training_only` loading and publishing do not count, as in a probe that only looks at steps.
    """
    number = footing.number_bytes
    trained = trained_parameters(shape, technique, load)
    weights, stored = _weights(shape, technique, number)
    activations = _activation_bytes(shape, technique, load, number)
    if footing.device == "cpu":
        activations += round(activations * _KEPT_BY_ALLOCATOR)
    batch = _batch_bytes(shape, load, number)
    training = weights + trained * (2 * WEIGHT_BYTES + MOMENT_BYTES) + activations + batch
    if technique is Technique.FULL:
        training -= trained * WEIGHT_BYTES  # they are the weights
    beyond, why = _other_phases(shape, technique, footing, training, trained)
    if training_only:
        beyond = 0
    adapter = 0 if technique is Technique.FULL else trained * WEIGHT_BYTES
    return (
        Line(part=Part.WEIGHTS, bytes=weights, how=stored),
        Line(
            part=Part.ADAPTER,
            bytes=adapter,
            how="none beside the weights" if not adapter else f"{trained:,} trained parameters in 32 bits",
        ),
        Line(
            part=Part.GRADIENTS,
            bytes=trained * WEIGHT_BYTES,
            how=f"4 bytes for each of {trained:,} trained parameters",
        ),
        Line(
            part=Part.OPTIMIZER,
            bytes=trained * MOMENT_BYTES,
            how="AdamW's two 32-bit moments, 8 bytes a trained parameter",
        ),
        Line(
            part=Part.ACTIVATIONS,
            bytes=activations,
            how=f"{activations // max(1, load.tokens):,} bytes for each of {load.tokens:,} tokens in a pass, "
            f"nothing recomputed{', gaps of the allocator included' * (footing.device == 'cpu')}",
        ),
        Line(
            part=Part.BATCH,
            bytes=batch,
            how=f"logits of {load.trained_tokens:,} trained tokens x {shape.vocabulary:,}, "
            "and their gradient",
        ),
        Line(part=Part.OVERHEAD, bytes=footing.runtime_bytes + beyond, how=why),
    )


def total(lines: Sequence[Line]) -> int:
    """Bytes of all lines."""
    return sum(line.bytes for line in lines)


def trained_parameters(shape: ModelShape, technique: Technique, load: Load) -> int:
    """How many numbers the optimizer moves."""
    match technique:
        case Technique.FULL:
            return shape.parameters
        case Technique.PROMPT_TUNING:
            return load.virtual_tokens * shape.hidden
        case _:
            return shape.adapter_parameters(load.rank, load.target_modules)


def _weights(shape: ModelShape, technique: Technique, number: int) -> tuple[int, str]:
    whole = shape.parameters
    if technique is Technique.QLORA:
        linear = shape.linear_parameters
        size = round(linear * FOUR_BIT_BYTES) + (whole - linear) * number
        return size, (
            f"{linear:,} in 4 bits with their scales, {whole - linear:,} (embeddings, head, norms) "
            f"in {8 * number}"
        )
    if technique is Technique.FULL:
        copies = 0 if number == WEIGHT_BYTES else whole * number
        return whole * WEIGHT_BYTES + copies, f"{whole:,} in 32 bits" + (
            f", and a copy in {8 * number} that computes" if copies else ""
        )
    return whole * number, f"{whole:,} frozen, in {8 * number} bits"


def _activation_bytes(shape: ModelShape, technique: Technique, load: Load, number: int) -> int:
    """What the forward pass keeps for the backward pass, and the largest things made on the way."""
    tokens = load.tokens + (load.rows * load.virtual_tokens if technique is Technique.PROMPT_TUNING else 0)
    kept = tokens * shape.layers * _kept_per_token(shape, technique, load, number)
    # One layer's gradients, and a dequantised matrix where the base is in 4 bits.
    passing = tokens * number * (3 * shape.intermediate + 2 * shape.hidden)
    if technique is Technique.QLORA:
        passing += number * max(linear.inputs * linear.outputs for linear in shape.linears)
    if technique in (Technique.LORA, Technique.QLORA) and number != WEIGHT_BYTES:
        kept += number * shape.adapter_parameters(load.rank, load.target_modules)
    return round(kept) + passing


def _kept_per_token(shape: ModelShape, technique: Technique, load: Load, number: int) -> float:
    """Bytes that one layer keeps for one token."""
    hidden, wide = shape.hidden, shape.intermediate
    queries, keys = shape.heads * shape.head_size, shape.key_value_heads * shape.head_size
    norms = 2 * 4 * hidden  # the inputs of both norms, in 32 bits
    attention = number * (2 * queries + 2 * keys) + 4 * shape.heads  # q, k, v, the result, and its normalizer
    gate = number * (3 if shape.gated else 4) * wide  # gate, its activation, up; or the steps of a GELU
    if technique is Technique.PROMPT_TUNING:
        return norms + attention + gate
    inputs = number * (2 * hidden + queries + wide)  # of q k v, of gate and up, of o, of down
    if technique is Technique.FULL:
        return norms + attention + gate + inputs + number * 2 * hidden  # what the norms' weights scale
    adapted = shape.adapted(load.target_modules)
    per_layer = max(1, shape.layers)
    masks = sum(one.inputs * one.count for one in adapted) / per_layer if load.dropout else 0
    projected = number * load.rank * sum(one.count for one in adapted) / per_layer
    return norms + attention + gate + inputs + masks + projected


def _batch_bytes(shape: ModelShape, load: Load, number: int) -> int:
    logits = load.trained_tokens * shape.vocabulary
    pieces = 2 if number == WEIGHT_BYTES else 3
    return 2 * logits * number + pieces * min(4 * logits, _CHUNK_BYTES) + load.tokens * 8 * 4


def _other_phases(
    shape: ModelShape, technique: Technique, footing: Footing, training: int, trained: int
) -> tuple[int, str]:
    """What loading and publishing need beyond training, and what the overhead is made of."""
    process = "interpreter and libraries" if footing.device == "cpu" else "what cuBLAS works in"
    whole = shape.parameters * footing.number_bytes
    reading = whole + shape.parameters * _FILE_BYTES
    weights, _ = _weights(shape, technique, footing.number_bytes)
    adapter = 0 if technique is Technique.FULL else trained * WEIGHT_BYTES
    phases = {}
    if footing.device == "cpu":  # a GPU neither reads files nor writes them
        phases["reading the weights"] = reading
        phases["writing a checkpoint"] = weights + adapter + trained * (MOMENT_BYTES + _CHECKPOINT_BYTES)
    if technique is Technique.QLORA:
        # The 4-bit base is gone by then; the adapter is copied to the whole one.
        base = reading if footing.device == "cpu" else whole
        phases["publishing, with the whole base instead of the 4-bit one"] = base + 2 * adapter
    if not phases:
        return 0, process
    name, most = max(phases.items(), key=lambda phase: phase[1])
    beyond = max(0, most - training)
    return beyond, f"{process}; {name} takes more than training" if beyond else process
