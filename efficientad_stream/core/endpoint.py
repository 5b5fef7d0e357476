"""ZeroMQ endpoints: which are well-formed, and which two cannot be bound together."""

from __future__ import annotations

import re
from typing import NamedTuple

TCP = re.compile(r"tcp://(?P<host>\*|[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\*|[0-9]{1,5})")
IPC = re.compile(r"ipc://[^\0]+")
IPC_MAX = 100
"""Bytes of an ipc endpoint that fit into the 108 of sockaddr_un, with some left to ZeroMQ."""
PORT_MAX = 65535
FREE_PORT = ("*", "0")
"""The system chooses one."""
ALL_HOSTS = ("*", "0.0.0.0", "[::]")  # noqa: S104 - recognised, not bound


def check(endpoint: str) -> None:
    """Is ``endpoint`` one that ZeroMQ can bind or connect?

    Raises:
        ValueError: it is neither tcp://HOST:PORT nor ipc://PATH.
    """
    if IPC.fullmatch(endpoint) and len(endpoint.encode()) <= IPC_MAX:
        return
    match = TCP.fullmatch(endpoint)
    if match is None or (match["port"] != "*" and int(match["port"]) > PORT_MAX):
        raise ValueError(f"{endpoint!r} is neither tcp://HOST:PORT nor a short ipc://PATH")


def collide(one: str, other: str) -> bool:
    """Would both need the same port, or the same path?"""
    a, b = TCP.fullmatch(one), TCP.fullmatch(other)
    if a is None or b is None:
        return one == other
    if a["port"] in FREE_PORT or b["port"] in FREE_PORT or int(a["port"]) != int(b["port"]):
        return False
    return a["host"] == b["host"] or a["host"] in ALL_HOSTS or b["host"] in ALL_HOSTS


class Endpoints(NamedTuple):
    """Where the three sockets of a station are; ``heatmaps`` is None where nobody asks for it."""

    decisions: str
    heatmaps: str | None
    control: str


def of_station(
    decisions: str, heatmaps: str | None = None, control: str | None = None
) -> Endpoints:
    """The sockets of the station whose decisions are at ``decisions``.

    Unless told otherwise the heatmaps are one port above it, and control is two.

    Raises:
        ValueError: one is malformed, or the others cannot be told from ``decisions``.
    """
    check(decisions)
    match = TCP.fullmatch(decisions)
    port = int(match["port"]) if match is not None and match["port"] not in FREE_PORT else None
    if match is not None and port is None:
        raise ValueError(f"{decisions!r} names no port to connect to")
    if port is not None and match is not None and port + 2 <= PORT_MAX:
        heatmaps = heatmaps or f"tcp://{match['host']}:{port + 1}"
        control = control or f"tcp://{match['host']}:{port + 2}"
    if control is None:
        raise ValueError(f"where control is does not follow from {decisions!r}; say it too")
    for endpoint in filter(None, (heatmaps, control)):
        check(endpoint)
    return Endpoints(decisions, heatmaps, control)
