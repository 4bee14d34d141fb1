"""The sockets on which a process listens."""

from __future__ import annotations

import socket
from contextlib import suppress


def listen(address: str, port: int) -> socket.socket:
    """Listen on an address; empty: on all of them. Raises OSError with the address and the port.

    All addresses are IPv6 and IPv4; only IPv4 where the node has no IPv6.
    """
    try:
        if address:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            return socket.create_server((address, port), family=family)
        if socket.has_dualstack_ipv6():
            with suppress(OSError):  # an address in use is an error of the next call, too
                return socket.create_server(
                    ("::", port), family=socket.AF_INET6, dualstack_ipv6=True
                )
        return socket.create_server(("", port))
    except OSError as error:
        where = f"{address or 'all addresses'}, port {port}"
        described = OSError(f"cannot listen on {where}: {error.strerror or error}")
        described.errno = error.errno
        raise described from error
