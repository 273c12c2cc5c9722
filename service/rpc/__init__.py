"""The gRPC face of the service: its contract is `protos/hotlora/v1`."""

from service.rpc.server import Server, ServerLimits

__all__ = ["Server", "ServerLimits"]
