"""What a probe found, and how it corrects the formula.

A probe trains a few steps of two sizes with the real loop. Memory is then a line over the tokens of a pass,
whose slope and height the formula only guesses; what the probe did not vary (rank, rows, logits) still comes
from the formula. Standard library only; see `trainer.probe` for how it is measured.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trainer.config import Technique
from trainer.planning.duration import Source, Speed
from trainer.planning.memory import Footing, Line, Load, Part, memory, total
from trainer.planning.shape import ModelShape

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A few steps of one size."""

    load: Load
    peak_bytes: int
    """The most memory in these steps."""
    step_seconds: float
    """The quickest of them: others were disturbed."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A probe of one technique on one base and device."""

    technique: Technique
    device: str
    """`cpu` or `cuda`."""
    number_bytes: int
    """Of the arithmetic that is fastest there."""
    runtime_bytes: int
    """Of the process before any model."""
    samples: tuple[Sample, ...]
    """Two, the smaller one first."""

    @property
    def footing(self) -> Footing:
        """As the formula wants it."""
        return Footing(device=self.device, number_bytes=self.number_bytes, runtime_bytes=self.runtime_bytes)

    @property
    def speed(self) -> Speed:
        """The line through both samples; through the larger alone where noise turned it round."""
        small, large = self.samples
        tokens = large.load.tokens - small.load.tokens
        slope = (large.step_seconds - small.step_seconds) / max(1, tokens)
        height = small.step_seconds - slope * small.load.tokens
        if slope <= 0 or height < 0:
            slope, height = large.step_seconds / large.load.tokens, 0.0
        return Speed(source=Source.PROBE, step_seconds=height, token_seconds=slope)

    def encode(self) -> str:
        """As JSON."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)})

    @classmethod
    def decode(cls, text: str) -> "Calibration":
        """What `encode` wrote. Raises ValueError on anything else."""
        try:
            fields = json.loads(text)
            if fields.pop("format") != FORMAT:
                raise ValueError("it is of another format")
            samples = tuple(_sample(one) for one in fields.pop("samples"))
            if len(samples) != 2:
                raise ValueError("it has not two samples")
            return cls(technique=Technique(fields.pop("technique")), samples=samples, **fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a calibration: {error}") from error


def calibrated(
    shape: ModelShape, load: Load, calibration: Calibration, formula: Sequence[Line]
) -> tuple[Line, ...]:
    """The formula's lines for `load`, with activations and overhead as the probe measured them.

    The error of the formula at both sizes is drawn as a line over tokens and added where it belongs: its
    slope to the activations, its height to the overhead.
    """
    small, large = calibration.samples
    wrong = [_error(shape, calibration, sample) for sample in (small, large)]
    span = max(1, large.load.tokens - small.load.tokens)
    slope = (wrong[1] - wrong[0]) / span
    height = wrong[0] - slope * small.load.tokens
    lines = {line.part: line for line in formula}
    kept, rest = lines[Part.ACTIVATIONS], lines[Part.OVERHEAD]
    corrected = {
        Part.ACTIVATIONS: replace(
            kept,
            bytes=max(0, round(kept.bytes + slope * load.tokens)),
            how=f"for {load.tokens:,} tokens in a pass, as measured on this device",
        ),
        Part.OVERHEAD: replace(
            rest, bytes=max(0, round(rest.bytes + height)), how=f"{rest.how}; measured on this device"
        ),
    }
    return tuple(corrected.get(line.part, line) for line in formula)


def _error(shape: ModelShape, calibration: Calibration, sample: Sample) -> int:
    """By how much the formula was too low in a sample."""
    lines = memory(shape, calibration.technique, sample.load, calibration.footing, training_only=True)
    return sample.peak_bytes - total(lines)


def _sample(fields: Mapping[str, object]) -> Sample:
    contents = dict(fields)
    load = contents.pop("load")
    if not isinstance(load, dict):
        raise ValueError("a sample has no load")
    load["target_modules"] = tuple(load["target_modules"])
    return Sample(load=Load(**load), **contents)  # type: ignore[arg-type]  # a wrong type fails later, in sums
