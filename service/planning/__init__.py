"""Plans: what a training will need, from the model's files, the dataset's rows and the device at hand."""

from service.planning.counting import UNKNOWN_SHARE, data_of
from service.planning.devices import OwnDevice, own_device
from service.planning.planner import DEFAULT_DATA, DESCRIBED_CONTEXT, Needs, Planner
from service.planning.probes import Probes

__all__ = [
    "DEFAULT_DATA",
    "DESCRIBED_CONTEXT",
    "UNKNOWN_SHARE",
    "Needs",
    "OwnDevice",
    "Planner",
    "Probes",
    "data_of",
    "own_device",
]
