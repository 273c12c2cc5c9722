"""The OpenAI-compatible gateway."""

from service.gateway.server import Gateway

__all__ = ["Gateway"]
