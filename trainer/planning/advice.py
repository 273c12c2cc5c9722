"""Which technique to take: the textbook's tree from memory and rows, then two looks at the numbers.

    80 GB and more: full    40 GB: LoRA    24 GB: QLoRA    less: QLoRA on a smaller model
    under 1,000 rows: risk of overfitting, regularise    over 10,000: full fine-tuning shines

The tree thinks of a 7B model. So what it says is checked against what the plan needs: what does not fit gives
way to the next that does, and a 4-bit base that saves nothing gives way to LoRA. What could not be served
here is no answer at all. Standard library only.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass

from trainer.config import Technique
from trainer.planning.memory import FOUR_BIT_BYTES
from trainer.planning.settings import FEW_ROWS, MANY_ROWS, Amount

GB = 10**9
_BANDS = ((80 * GB, Technique.FULL), (40 * GB, Technique.LORA), (24 * GB, Technique.QLORA))
_THRIFTIER = (Technique.FULL, Technique.LORA, Technique.QLORA)
"""From the most memory to the least, as the tree has them."""
_TREE = {
    Technique.FULL: "80 GB and more: full fine-tuning",
    Technique.LORA: "40 GB and more: LoRA",
    Technique.QLORA: "24 GB and more: QLoRA",
}
_TITLES = {
    Technique.FULL: "full fine-tuning",
    Technique.LORA: "LoRA",
    Technique.QLORA: "QLoRA",
    Technique.PROMPT_TUNING: "prompt tuning",
}
_SMALL_MODEL_SHARE = 0.5
"""Of the memory that a smaller model's weights may take, so that the rest of a run fits beside them."""


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """One answer."""

    technique: Technique | None
    """None where no technique could be served."""
    fits: bool
    """False where nothing fits: then a smaller model is needed."""
    reasons: tuple[str, ...]


def recommend(
    *,
    memory_bytes: int,
    rows: int,
    needed: Mapping[Technique, int],
    available_bytes: int,
    unservable: Mapping[Technique, str] | None = None,
) -> Recommendation:
    """Follow the tree with the device's whole memory; `needed` and `available_bytes` decide what fits.

    A technique that is `unservable`, for the reason that stands there, is never the answer.
    """
    unservable = unservable or {}
    needed = {technique: size for technique, size in needed.items() if technique not in unservable}
    if not needed:
        told = tuple(f"{_TITLES[one]} could not be served: {why}" for one, why in unservable.items())
        return Recommendation(technique=None, fits=False, reasons=told)
    fits = {technique for technique, size in needed.items() if size <= available_bytes}
    chosen, reasons = _by_the_tree(memory_bytes)
    if Amount.of(rows) is Amount.MANY and chosen is not Technique.FULL and Technique.FULL in fits:
        chosen = Technique.FULL
        reasons.append(
            f"{rows:,} rows are more than {MANY_ROWS:,}: full fine-tuning shines, and it fits "
            f"({_gb(needed[chosen])})"
        )
    possible = _possible(chosen, needed, fits)
    if chosen in unservable:
        reasons.append(
            f"{_TITLES[chosen]} could not be served here ({unservable[chosen]}); {_TITLES[possible]} could"
        )
    elif possible is not chosen:
        reasons.append(
            f"{_TITLES[chosen]} needs {_gb(needed[chosen])} of {_gb(available_bytes)}; "
            f"{_TITLES[possible]} needs {_gb(needed[possible])}"
        )
    chosen = possible
    thrifty = needed.get(Technique.LORA)
    if chosen is Technique.QLORA and thrifty is not None and thrifty <= needed[Technique.QLORA]:
        reasons.append(
            f"but with a base this small QLoRA needs {_gb(needed[Technique.QLORA])} and LoRA "
            f"{_gb(thrifty)}: 4 bits would only cost accuracy, so LoRA"
        )
        chosen = Technique.LORA
    if chosen not in fits:
        reasons.append(
            f"{_TITLES[chosen]} needs {_gb(needed[chosen])}, more than the {_gb(available_bytes)} there are: "
            f"take a smaller model, up to about {_largest_parameters(available_bytes)} parameters"
        )
    reasons.append(_of_rows(rows))
    return Recommendation(technique=chosen, fits=chosen in fits, reasons=tuple(reasons))


def _by_the_tree(memory_bytes: int) -> tuple[Technique, list[str]]:
    for bound, technique in _BANDS:
        if memory_bytes >= bound:
            return technique, [f"{_gb(memory_bytes)} of memory; {_TREE[technique]}"]
    return Technique.QLORA, [f"{_gb(memory_bytes)} are less than 24 GB: QLoRA on a small model"]


def _possible(chosen: Technique, needed: Mapping[Technique, int], fits: Set[Technique]) -> Technique:
    """`chosen`, or what comes nearest to it among those that could be served, fitting ones first."""
    for technique in _THRIFTIER[_THRIFTIER.index(chosen) :]:
        if technique in fits:
            return technique
    if fits:
        return min(fits, key=lambda technique: needed[technique])
    return chosen if chosen in needed else min(needed, key=lambda technique: needed[technique])


def _of_rows(rows: int) -> str:
    match Amount.of(rows):
        case Amount.FEW:
            return (
                f"{rows:,} rows are under {FEW_ROWS:,}: there is a risk of overfitting. Small model, strong "
                "regularisation: more dropout and weight decay, few epochs, a small rank"
            )
        case Amount.ENOUGH:
            return f"{rows:,} rows are between {FEW_ROWS:,} and {MANY_ROWS:,}: most techniques work"
        case Amount.MANY:
            return (
                f"{rows:,} rows are more than {MANY_ROWS:,}: the more memory allows, full fine-tuning shines"
            )


def _largest_parameters(available_bytes: int) -> str:
    count = _SMALL_MODEL_SHARE * available_bytes / FOUR_BIT_BYTES
    return f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.0f} million"


def _gb(size: int) -> str:
    return f"{size / GB:.1f} GB"
