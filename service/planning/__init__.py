"""Plans: what a training will need, from the model's files, the dataset's rows and the device at hand."""

from service.planning.devices import OwnDevice, own_device
from service.planning.planner import Planner
from service.planning.probes import Probes

__all__ = ["OwnDevice", "Planner", "Probes", "own_device"]
