"""The OpenAI-compatible gateway."""

from service.gateway.files import Files
from service.gateway.fine_tuning import FineTuning
from service.gateway.server import Gateway

__all__ = ["Files", "FineTuning", "Gateway"]
