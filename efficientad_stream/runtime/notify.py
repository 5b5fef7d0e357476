"""Word to systemd (sd_notify(3)): a datagram to the socket that it names, or nothing."""

from __future__ import annotations

import os
import socket

from efficientad_stream import logs

READY, STOPPING = "READY=1", "STOPPING=1"


def notify(state: str) -> bool:
    """Tell systemd ``state``; False if nobody asked to be told, or did not listen."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(0.5)
            sock.sendto(state.encode(), address)
    except OSError as error:
        logs.get().warning("systemd does not listen", socket=path, error=str(error))
        return False
    return True
