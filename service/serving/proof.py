"""Whether the engine serves the adapter that was trained: log-probabilities of the canary, compared.

Three comparisons, all means of absolute differences in nats per token: served adapter with recorded adapter
(must be small), served adapter with served base (its effect), served base with recorded base (numeric noise
between the two implementations, which sets what small means). Small is not enough, since a weak adapter and
its base may both be that near: how much of the trained effect is there, token by token, has to be about all
of it (`Strength`). Then the base is asked once more, in the adapter's company, which must not change what it
says. `compare` is pure; `Prover` asks the engine.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from service.artifacts import CanarySequence
from service.engine.face import Engine
from service.serving.routes import Route

TOLERANCE_FLOOR: Final = 0.005
"""Nats per token. Where trainer and engine both compute in 32 bits their noise is 0.00001 (measured); the
floor leaves room for adapter operators that round more than the base's do."""
NOISE_FACTOR: Final = 3.0
"""An adapter is rounded too, and moves what is rounded. Against a base's noise of 0.05 to 0.07 (16 bits) an
adapter's was measured at 0.9 to 1.2 times that, and at 2.1 times where the trainer had 32 bits."""
STRENGTH_LEEWAY: Final = 0.25
"""How far from 1 a strength may be: rounding moves it by a few hundredths, half an adapter by 0.5."""
MAX_STRENGTH_ERROR: Final = STRENGTH_LEEWAY / 3
"""Standard error of a strength above which it decides nothing: an adapter in full might look like half of it,
or the base like a part of it."""
_COMPANY: Final = 2
"""Sequences of each model that are asked at once: an idle engine may begin with the first request alone, and
batches those that come meanwhile."""
_COMPANY_TOKENS: Final = 16
"""Of each, its last ones: whoever is given another's weights is so from its first token on, and this is asked
with every adapter."""
_MAX_CACHED: Final = 4096
"""Base measurements kept; one is some 64 numbers."""


class Verdict(StrEnum):
    """What the figures say."""

    OK = "OK"
    NO_EFFECT = "NO_EFFECT"
    """The engine answers as the base does."""
    WRONG_WEIGHTS = "WRONG_WEIGHTS"
    """The engine answers as neither the trained adapter nor the base."""
    MIXED_UP = "MIXED_UP"
    """The base answers differently while an adapter is asked too."""


@dataclass(frozen=True, kw_only=True)
class Strength:
    """Which share of the trained effect the engine shows: 1 is all of it, 0 the base or something unrelated.

    The slope of the served effects of all tokens over the trained ones, through the origin, and its standard
    error without the assumption that all tokens are equally noisy (White, Econometrica 48(4), 1980).
    """

    share: float
    error: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Figures of a proof, in nats per token, and what follows from them."""

    tokens: int
    adapter_difference: float
    effect: float
    trained_effect: float
    noise: float
    tolerance: float
    strength: Strength
    quantisation_difference: float | None
    """Served adapter with what it was on the quantised base of its training; None where there was none."""
    verdict: Verdict
    message: str
    """One sentence for a person, with the numbers."""


Logprobs = Sequence[Sequence[float]]


def compare(
    canary: Sequence[CanarySequence], *, served_base: Logprobs, served_adapter: Logprobs
) -> Comparison:
    """Judge what the engine measured on `canary`, sequence by sequence.

    Non-finite numbers of the adapter are WRONG_WEIGHTS. An adapter so weak that the noise hides how much of
    it is there cannot be told from the base, and is NO_EFFECT even if it is served.
    """
    recorded_base = [sequence.base_logprobs for sequence in canary]
    recorded_adapter = [sequence.adapter_logprobs for sequence in canary]
    noise = _difference(served_base, recorded_base)
    tolerance = max(TOLERANCE_FLOOR, NOISE_FACTOR * noise)
    difference = _difference(served_adapter, recorded_adapter)
    effect = _difference(served_adapter, served_base)
    trained_effect = _difference(recorded_adapter, recorded_base)
    strength = _strength(_flat(served_adapter, served_base), _flat(recorded_adapter, recorded_base))
    verdict, message = _judge(difference, effect, trained_effect, tolerance, strength)
    return Comparison(
        tokens=sum(len(each) for each in recorded_base),
        adapter_difference=difference,
        effect=effect,
        trained_effect=trained_effect,
        noise=noise,
        tolerance=tolerance,
        strength=strength,
        quantisation_difference=_quantisation_difference(canary, served_adapter),
        verdict=verdict,
        message=message,
    )


def _judge(
    difference: float, effect: float, trained_effect: float, tolerance: float, strength: Strength
) -> tuple[Verdict, str]:
    if not math.isfinite(tolerance):
        return Verdict.WRONG_WEIGHTS, "the engine's base model gave no finite log-probabilities"
    if not (math.isfinite(difference) and math.isfinite(effect)):
        return Verdict.WRONG_WEIGHTS, "the engine gave no finite log-probabilities with the adapter"
    far = difference > tolerance
    if not far and (trained_effect <= TOLERANCE_FLOOR or strength.error > MAX_STRENGTH_ERROR):
        return Verdict.NO_EFFECT, (
            f"training moved the model by {trained_effect:.4f} nats per token, and the engine is "
            f"{difference:.4f} from the trained adapter and {effect:.4f} from the base, which cannot be told "
            f"from numeric noise (tolerance {tolerance:.4f}); train longer or with a higher learning rate"
        )
    if effect <= tolerance and abs(strength.share) <= STRENGTH_LEEWAY:
        return Verdict.NO_EFFECT, (
            f"the engine answers as the base does: the adapter moves it by {effect:.4f} nats per token where "
            f"training moved it by {trained_effect:.4f} (tolerance {tolerance:.4f})"
        )
    if far or abs(strength.share - 1) > STRENGTH_LEEWAY:
        return Verdict.WRONG_WEIGHTS, (
            f"the engine does not answer as the trained adapter: {difference:.4f} nats per token apart "
            f"(tolerance {tolerance:.4f}), with {strength.share:.0%} of its effect"
        )
    return Verdict.OK, (
        f"the engine answers as the trained adapter: {difference:.4f} nats per token apart (tolerance "
        f"{tolerance:.4f}), {effect:.4f} from the base, with {strength.share:.0%} of its effect"
    )


def _strength(served: Sequence[float], trained: Sequence[float]) -> Strength:
    """Of the effects of all tokens."""
    squares = math.fsum(effect * effect for effect in trained)
    if not squares or not all(map(math.isfinite, served)):
        return Strength(share=math.nan, error=math.inf)
    pairs = list(zip(served, trained, strict=True))
    share = math.fsum(here * there for here, there in pairs) / squares
    scatter = math.fsum((there * (here - share * there)) ** 2 for here, there in pairs)
    return Strength(share=share, error=math.sqrt(scatter) / squares)


def _judge_company(comparison: Comparison, moved: float) -> Comparison:
    if moved <= comparison.tolerance:
        return comparison
    return replace(
        comparison,
        verdict=Verdict.MIXED_UP,
        message=f"the engine mixes up models: while an adapter is asked too, the base moves by {moved:.4f} "
        f"nats per token (tolerance {comparison.tolerance:.4f}). vLLM's CPU build does so without the plugin "
        "hotlora-vllm-cpu-lora",
    )


def _quantisation_difference(canary: Sequence[CanarySequence], served_adapter: Logprobs) -> float | None:
    recorded = [each.quantised_logprobs for each in canary if each.quantised_logprobs is not None]
    return _difference(served_adapter, recorded) if len(recorded) == len(canary) else None


def _difference(left: Logprobs, right: Logprobs) -> float:
    """Mean absolute difference over all tokens; nan where either has one."""
    differences = _flat(left, right)
    return math.fsum(map(abs, differences)) / len(differences)


def _flat(left: Logprobs, right: Logprobs) -> list[float]:
    """Left minus right, for each token of all sequences."""
    return [
        a - b
        for of_left, of_right in zip(left, right, strict=True)
        for a, b in zip(of_left, of_right, strict=True)
    ]


class Prover:
    """Measures canaries on engines. What the base says alone is asked once an engine, generation and
    sequence."""

    def __init__(self) -> None:
        self._base: OrderedDict[tuple[Engine, int, tuple[int, ...]], tuple[float, ...]] = OrderedDict()

    async def prove(
        self, *, base: Route, served: Route, generation: int, canary: Sequence[CanarySequence]
    ) -> Comparison:
        """Compare what `served` says with the canary, wherever it can be measured; `generation` is that of
        the engine behind `base`. Raises EngineRefused, Unavailable."""
        # Sequences of one model go together, in one batch; the two models do not, so that neither can hide in
        # the other's company.
        served_base = await asyncio.gather(
            *(self._base_logprobs(base, generation, sequence.token_ids) for sequence in canary)
        )
        served_adapter = await asyncio.gather(*(served.logprobs(sequence.token_ids) for sequence in canary))
        places = [served.places(len(sequence.token_ids)) for sequence in canary]
        comparison = compare(
            [_at(sequence, where) for sequence, where in zip(canary, places, strict=True)],
            served_base=[_picked(each, where) for each, where in zip(served_base, places, strict=True)],
            served_adapter=served_adapter,
        )
        shares_batches = served.engine is base.engine and served.prefix is None
        if comparison.verdict is not Verdict.OK or not shares_batches:
            return comparison
        moved = await self._moved_by_company(base, served, generation, canary)
        return _judge_company(comparison, moved)

    async def _moved_by_company(
        self, base: Route, served: Route, generation: int, canary: Sequence[CanarySequence]
    ) -> float:
        """How far the base is from itself alone while `served` is asked too, in nats per token.

        Asked with every adapter, not once: stock vLLM's CPU operators give the base whatever lies in the last
        of the engine's slots, which an engine's first adapters do not reach. (Those of vLLM 0.32 end the
        engine before it comes to this, at the first proof; ones that are mended in part would not.)
        """
        asked = [sequence.token_ids[-_COMPANY_TOKENS:] for sequence in (*canary, *canary)[:_COMPANY]]
        alone = [await self._base_logprobs(base, generation, token_ids) for token_ids in asked]
        together = await asyncio.gather(
            *(route.logprobs(token_ids) for token_ids in asked for route in (served, base))
        )
        return _difference(together[1::2], alone)

    async def _base_logprobs(
        self, base: Route, generation: int, token_ids: tuple[int, ...]
    ) -> tuple[float, ...]:
        key = (base.engine, generation, token_ids)
        if key not in self._base:
            self._base[key] = await base.logprobs(token_ids)
            while len(self._base) > _MAX_CACHED:
                self._base.popitem(last=False)
        return self._base[key]


def _at(sequence: CanarySequence, places: Sequence[int]) -> CanarySequence:
    """What was recorded at `places` alone."""
    return replace(
        sequence,
        base_logprobs=_picked(sequence.base_logprobs, places),
        adapter_logprobs=_picked(sequence.adapter_logprobs, places),
        quantised_logprobs=(
            None if sequence.quantised_logprobs is None else _picked(sequence.quantised_logprobs, places)
        ),
    )


def _picked(logprobs: Sequence[float], places: Sequence[int]) -> tuple[float, ...]:
    return tuple(logprobs[place] for place in places)
