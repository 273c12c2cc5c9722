"""Runs tuning jobs in trainer processes. `Runner` is the way in."""

from service.runner.limits import Limits
from service.runner.runner import COMMAND, Runner

__all__ = ["COMMAND", "Limits", "Runner"]
