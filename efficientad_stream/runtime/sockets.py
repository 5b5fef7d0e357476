"""Binding ZeroMQ sockets, with words where ZeroMQ has numbers."""

from __future__ import annotations

import errno
import socket as unix
import stat
from pathlib import Path

import zmq

from efficientad_stream.core.errors import ConfigError, EfficientADError, FatalError

LINGER_MS = 300
"""How long a closed socket may go on to deliver what was sent."""
KEEPALIVE_S = 30
"""A connection on which nothing has come for so long is probed; the system ends dead ones."""


def bind(socket: zmq.Socket[bytes], endpoint: str, key: str) -> str:
    """Bind ``socket``; the result is ``endpoint`` with the port that the system chose, if it did.

    Args:
        socket: new; it is closed if it cannot be bound.
        endpoint: tcp://HOST:PORT or ipc://PATH.
        key: where the endpoint stands in the configuration, for the message.

    Raises:
        FatalError: the port is in use, or may not be used.
        ConfigError: there is no such address on this machine.
    """
    socket.linger = LINGER_MS
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_S)
    if "[" in endpoint:
        socket.setsockopt(zmq.IPV6, 1)
    try:
        check_path(endpoint, key)
        socket.bind(endpoint)
    except EfficientADError:
        socket.close(linger=0)
        raise
    except zmq.ZMQError as error:
        socket.close(linger=0)
        if error.errno == errno.EADDRINUSE:
            raise _taken(endpoint, key) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise FatalError(f"{key}: {endpoint} may not be bound: {error.strerror}") from error
        raise ConfigError(
            f"{key}: {endpoint} cannot be bound: {error.strerror}; give an address of this machine"
        ) from error
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def check_path(endpoint: str, key: str) -> None:
    """See that an ipc endpoint is free: ZeroMQ removes whatever is at its path, unasked.

    Raises:
        ConfigError: the path is that of a file or folder.
        FatalError: another process listens there.
    """
    path = endpoint.removeprefix("ipc://")
    if path == endpoint or path.startswith("@"):
        return
    try:
        found = Path(path).lstat()
    except OSError:
        return  # nothing is there, or binding says what is wrong
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(
            f"{key}: {endpoint} cannot be bound: there is a file or folder of that name"
        )
    with unix.socket(unix.AF_UNIX, unix.SOCK_STREAM | unix.SOCK_NONBLOCK) as probe:
        if probe.connect_ex(path) != errno.ECONNREFUSED:
            raise _taken(endpoint, key)


def _taken(endpoint: str, key: str) -> FatalError:
    what = "port" if endpoint.startswith("tcp:") else "path"
    return FatalError(
        f"{key}: {endpoint} is in use by another process; choose another {what} or stop it"
    )
