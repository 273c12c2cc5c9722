"""Plans: what a training will need, from the model's files, the dataset's rows and the device at hand."""

from service.planning.counting import UNKNOWN_SHARE, data_of
from service.planning.devices import OwnDevice, own_device
from service.planning.planner import Planner
from service.planning.probes import Probes

__all__ = ["UNKNOWN_SHARE", "OwnDevice", "Planner", "Probes", "data_of", "own_device"]
