"""What a training will need, computed before it runs: memory, time, settings, and which technique to take.

Standard library only, so that the service can plan without torch. `trainer.probe` measures what is guessed.
"""

from trainer.planning.advice import Recommendation
from trainer.planning.calibration import Calibration, Sample
from trainer.planning.duration import Data, Source
from trainer.planning.memory import ERROR_SHARE, RUNTIME_BYTES, Footing, Line, Load, Part
from trainer.planning.plan import Device, Plan, TechniquePlan, plan
from trainer.planning.settings import choose, complete
from trainer.planning.shape import ModelShape, ShapeError, described, shape_of_directory
from trainer.planning.textbook import EXAMPLES, Example, TextbookLine, textbook

__all__ = [
    "ERROR_SHARE",
    "EXAMPLES",
    "RUNTIME_BYTES",
    "Calibration",
    "Data",
    "Device",
    "Example",
    "Footing",
    "Line",
    "Load",
    "ModelShape",
    "Part",
    "Plan",
    "Recommendation",
    "Sample",
    "ShapeError",
    "Source",
    "TechniquePlan",
    "TextbookLine",
    "choose",
    "complete",
    "described",
    "plan",
    "shape_of_directory",
    "textbook",
]
