"""Where our own parts listen: on loopback only, because none of them asks who is calling."""

import ipaddress


def loopback(address: str) -> str:
    """The address, HOST:PORT with port 0 for a free one. Raises ValueError, saying what would be accepted."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address!r} is not HOST:PORT, for example 127.0.0.1:50051 (port 0: a free one)")
    bare_host = host.strip("[]")
    try:
        is_loopback = bare_host == "localhost" or ipaddress.ip_address(bare_host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ValueError(f"{host!r} is not a loopback host; accepted: 127.0.0.1, [::1], localhost")
    return address
