"""The decisions socket: verdicts and heartbeats, never anything large."""

from __future__ import annotations

import threading

import zmq

from efficientad_stream.core import wire
from efficientad_stream.core.messages import DECISION, HEARTBEAT
from efficientad_stream.runtime.sockets import bind

SEND_HWM = 10_000
"""Messages kept for a subscriber that does not read; it gets the rest from the journal."""


class Publisher:
    """PUB socket of one station, used by the thread that decides and the one that beats.

    Its context should be its own: whatever hangs elsewhere, what was sent here can be let out.

    Sending never blocks: ZeroMQ drops what a slow subscriber has no room for, and the contract
    lets the subscriber see the gap and ask for it.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, station: str, head: int = 0
    ) -> None:
        """Bind.

        Args:
            context: of this socket alone.
            endpoint: publish.decisions.
            station: name of the station.
            head: the journal's head: the last seq published by earlier runs.

        Raises:
            FatalError: the port is in use.
            ConfigError: the address is none of this machine.
        """
        self._decisions = wire.topic(DECISION, station)
        self._heartbeats = wire.topic(HEARTBEAT, station)
        self._lock = threading.Lock()
        self._published = head
        self._sent = 0
        self._refused = 0
        self._socket = context.socket(zmq.PUB)
        self._socket.sndhwm = SEND_HWM
        self._endpoint = bind(self._socket, endpoint, "publish.decisions")

    @property
    def endpoint(self) -> str:
        """Where the socket is bound."""
        return self._endpoint

    @property
    def published(self) -> int:
        """The last seq that was sent."""
        return self._published

    def send(self, header: bytes, body: bytes) -> None:
        """Publish a decision that is in the journal."""
        self._put([self._decisions, header, body])
        self._published = wire.unpack_header(header).seq

    def beat(self, header: bytes, body: bytes) -> None:
        """Publish a heartbeat."""
        self._put([self._heartbeats, header, body])

    def stats(self) -> dict[str, int]:
        """Counters for status and metrics."""
        return {"sent": self._sent, "refused": self._refused}

    def close(self) -> None:
        """Close; what was sent may still be delivered for a moment. May be called at any time.

        A thread that still wants to send is refused, not failed.
        """
        with self._lock:
            self._socket.close()

    def _put(self, frames: list[bytes]) -> None:
        with self._lock:
            if self._socket.closed:
                self._refused += 1
                return
            try:
                self._socket.send_multipart(frames, zmq.DONTWAIT)
            except zmq.Again:
                self._refused += 1
            else:
                self._sent += 1
