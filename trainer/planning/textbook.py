"""The textbook's sum for a model, its two worked examples, and where reality differs from it.

    total = model size + gradients + optimizer states + activations + batch data

with 4 bytes a parameter everywhere, and Adam's two states. The textbook works it out for LLaMA 7B (full
fine-tuning, LoRA and QLoRA in 32 bits) and for GPT-2; `EXAMPLES` has what it prints, so that both can be laid
side by side with what the same model needs in truth. Standard library only.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from trainer.config import Technique
from trainer.planning.memory import FOUR_BIT_BYTES, Part
from trainer.planning.shape import ModelShape, described

GB = 10**9
MB = 10**6
SEQUENCE_TOKENS = 2048
"""One row of this length is in the pass; the textbook's activations of LLaMA 7B are those."""
ADAPTER_RANK = 8
"""On every linear layer and in 16 bits: then LLaMA 7B's adapter has the textbook's 40 MB."""
ACTIVATION_BYTES = 34
"""For each token, layer and hidden unit in 16 bits, without the attention's scores (Korthikanti et al. 2022,
arXiv:2205.05198, section 4.1); twice that in 32 bits."""


@dataclass(frozen=True, kw_only=True)
class TextbookLine:
    """One term: by the textbook's rule, as the textbook prints it, and as it really is."""

    part: Part
    bytes: int
    rule: str
    printed_bytes: int | None = None
    """None where it is not about one of the textbook's examples, or leaves the term out."""
    real_bytes: int = 0
    reality: str = ""
    """Why it differs; empty where the rule is right."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A model that the textbook works out."""

    shape: ModelShape
    parameters: int
    """As the textbook rounds them."""
    printed: Mapping[Technique, Mapping[Part, int]]
    printed_totals: Mapping[Technique, int]


LLAMA_7B = described(
    layers=32, hidden=4096, heads=32, key_value_heads=32, intermediate=11008, vocabulary=32_000, tied=False
)
GPT2 = described(
    family="gpt2",
    layers=12,
    hidden=768,
    heads=12,
    key_value_heads=12,
    intermediate=3072,
    vocabulary=50_257,
    tied=True,
    positions=1024,
)

_ADAPTER = {Part.ADAPTER: 40 * MB, Part.GRADIENTS: 40 * MB, Part.OPTIMIZER: 80 * MB}
EXAMPLES: Mapping[str, Example] = {
    "llama-7b": Example(
        shape=LLAMA_7B,
        parameters=7 * GB,
        printed={
            Technique.FULL: {
                Part.WEIGHTS: 28 * GB,
                Part.GRADIENTS: 28 * GB,
                Part.OPTIMIZER: 56 * GB,
                Part.ACTIVATIONS: 20 * GB,
            },
            Technique.LORA: {Part.WEIGHTS: 28 * GB, **_ADAPTER, Part.ACTIVATIONS: 10 * GB},
            Technique.QLORA: {Part.WEIGHTS: 7 * GB, **_ADAPTER, Part.ACTIVATIONS: 10 * GB},
        },
        printed_totals={Technique.FULL: 132 * GB, Technique.LORA: 40 * GB, Technique.QLORA: 18 * GB},
    ),
    "gpt2": Example(
        shape=GPT2,
        parameters=125 * MB,
        printed={
            Technique.FULL: {Part.WEIGHTS: 500 * MB, Part.GRADIENTS: 500 * MB, Part.OPTIMIZER: 1000 * MB}
        },
        printed_totals={Technique.FULL: 2 * GB},
    ),
}


def textbook(
    shape: ModelShape, technique: Technique, example: Example | None = None
) -> tuple[TextbookLine, ...]:
    """The sum for a model by the textbook's rules; with `example`, on its rounded numbers and beside its own.

    Prompt tuning, which the textbook names and does not work out, follows its rule for LoRA.
    """
    parameters = example.parameters if example else shape.parameters
    printed = example.printed.get(technique, {}) if example else {}
    trained = _trained(shape, technique, parameters)
    size = 4 if technique is Technique.FULL else 2
    """Bytes of a trained parameter."""
    lines = [
        _weights(shape, technique, parameters),
        TextbookLine(
            part=Part.ADAPTER,
            bytes=0 if technique is Technique.FULL else trained * size,
            rule=_adapter_rule(technique),
            real_bytes=0 if technique is Technique.FULL else trained * 4,
            reality="" if technique is Technique.FULL else "ours are kept in 32 bits: small steps need them",
        ),
        TextbookLine(
            part=Part.GRADIENTS,
            bytes=trained * size,
            rule=f"one of {size} bytes a trained parameter",
            real_bytes=trained * 4,
            reality="" if size == 4 else "32 bits, as the adapter",
        ),
        TextbookLine(
            part=Part.OPTIMIZER,
            bytes=trained * size * 2,
            rule=f"Adam's two states, {2 * size} bytes a trained parameter",
            real_bytes=trained * 8,
            reality="" if size == 4 else "AdamW keeps 32-bit moments: 8 bytes a trained parameter",
        ),
    ]
    if not example or Part.ACTIVATIONS in printed:
        lines.append(_activations(shape, technique))
    return tuple(
        TextbookLine(
            part=line.part,
            bytes=line.bytes,
            rule=line.rule,
            printed_bytes=printed.get(line.part),
            real_bytes=line.real_bytes,
            reality=line.reality,
        )
        for line in lines
        if line.bytes
    )


def _trained(shape: ModelShape, technique: Technique, parameters: int) -> int:
    match technique:
        case Technique.FULL:
            return parameters
        case Technique.PROMPT_TUNING:
            return 20 * shape.hidden
        case _:
            return shape.adapter_parameters(ADAPTER_RANK)


def _adapter_rule(technique: Technique) -> str:
    if technique is Technique.PROMPT_TUNING:
        return "20 virtual tokens, in 16 bits"
    return f"rank {ADAPTER_RANK} on every linear layer, in 16 bits"


def _weights(shape: ModelShape, technique: Technique, parameters: int) -> TextbookLine:
    rest = shape.parameters - shape.linear_parameters
    if technique is Technique.QLORA:
        return TextbookLine(
            part=Part.WEIGHTS,
            bytes=parameters,
            rule="1 byte a parameter, called 4-bit",
            real_bytes=round(shape.linear_parameters * FOUR_BIT_BYTES) + rest * 2,
            reality=f"4 bits are half a byte: {_gb(parameters // 2)} if all of it were quantised. "
            f"{rest:,} parameters (embeddings, head, norms) stay in 16 bits, {_gb(rest * 2)}, "
            "and scales of the blocks add 3% to the rest",
        )
    real = shape.parameters * (4 if technique is Technique.FULL else 2)
    why = "" if technique is Technique.FULL else "a frozen base needs no 32 bits: 16 are enough"
    if parameters != shape.parameters:
        rounded = f"the model has {shape.parameters:,} parameters, not {parameters:,}"
        why = f"{why}; {rounded}" if why else rounded
    return TextbookLine(
        part=Part.WEIGHTS, bytes=parameters * 4, rule="4 bytes a parameter", real_bytes=real, reality=why
    )


def _activations(shape: ModelShape, technique: Technique) -> TextbookLine:
    unit = SEQUENCE_TOKENS * shape.layers * shape.hidden * ACTIVATION_BYTES
    full = technique is Technique.FULL
    return TextbookLine(
        part=Part.ACTIVATIONS,
        bytes=unit * (2 if full else 1),
        rule=f"{ACTIVATION_BYTES * (2 if full else 1)} bytes a token, layer and hidden unit for one row of "
        f"{SEQUENCE_TOKENS:,} tokens",
        real_bytes=unit * (2 if full else 1),
        reality="grows with the tokens of a pass, which is no part of the model: see the plan's own line",
    )


def _gb(size: int) -> str:
    return f"{size / GB:.1f} GB"
