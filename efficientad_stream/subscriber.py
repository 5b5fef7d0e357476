"""One station as its consumers see it: for ``watch``, gateways and anybody else.

Subscribe, HELLO, GET what is missing, hold back what came too early, drop duplicates, ACK. Needs
neither an engine nor the daemon: only ZeroMQ and the contract.
"""

from __future__ import annotations

import os
import socket as host
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import zmq

from efficientad_stream.core import dialogue, wire
from efficientad_stream.core.catchup import CatchUp, Refused
from efficientad_stream.core.endpoint import Endpoints
from efficientad_stream.core.errors import ConfigError
from efficientad_stream.core.messages import (
    DECISION,
    HEARTBEAT,
    HEATMAP,
    Decision,
    Heartbeat,
    Heatmap,
    WireError,
)
from efficientad_stream.core.sequencer import Lost, NewEpoch, Start

SILENT_BEATS = 3.5
"""Heartbeats that may be missing before the station counts as lost (350 ms at 100 ms)."""
UNKNOWN, STOPPED = "unknown", "stopped"
STOPPED_FOR_S = 2.0
"""How long a consumer goes on asking a station that has said goodbye."""
LOOK_S = 0.05
AT_ONCE = 1000
RECEIVE_HWM = 10_000
RECONNECT_MS = 50
LINGER_MS = 300
PING_MS, DEAD_MS = 500, 1500
"""A peer that answers no ping is dead even if its connection looks alive: a machine that was
switched off never closed it, and a socket that only listens would never find out."""


@dataclass(frozen=True)
class Silent:
    """No heartbeat for too long, or none yet: the station is lost, and a gate rejects."""

    after_s: float


@dataclass(frozen=True)
class Back:
    """The heartbeat is there, for the first time or again."""

    state: str


Event = Decision | Heartbeat | Heatmap | Lost | NewEpoch | Refused | Silent | Back


class Subscriber:
    """Every decision of a station, once and in order, and what else there is to know of it.

    ``poll`` does all the work, on the thread that calls it. What one ``poll`` returned is
    acknowledged by the next: whoever comes back has dealt with it.
    """

    def __init__(
        self,
        where: Endpoints,
        *,
        start: Start | int = Start.NEW,
        station: str | None = None,
        heatmaps: bool = False,
        consumer: str | None = None,
        stage: str = "seen",
        clock: Callable[[], float] = time.monotonic,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """Connect; the station need not be there yet.

        Args:
            where: its sockets.
            start: where to begin.
            station: its name, if no other may be taken for it.
            heatmaps: whether to subscribe to them too.
            consumer: a name that no other consumer of the station has; None: made up.
            stage: what an ACK says has become of a decision.
            clock: monotonic seconds.
            now_us: UTC microseconds.

        Raises:
            ConfigError: an endpoint cannot be connected to.
        """
        self._station = station
        self._clock = clock
        self._catchup = CatchUp(consumer or unique_name(), start, stage, now_us())
        self._malformed = 0
        self._unsent = 0
        self._heard = clock()
        self._silent_s = SILENT_BEATS * 0.1
        self._lost = False
        self._state = UNKNOWN
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []
        self._poller = zmq.Poller()
        try:
            self._live = self._connect(zmq.SUB, where.decisions, DECISION, HEARTBEAT)
            self._control = self._connect(zmq.DEALER, where.control)
            self._maps = None
            if heatmaps and where.heatmaps is not None:
                self._maps = self._connect(zmq.SUB, where.heatmaps, HEATMAP)
        except ConfigError:
            self._context.destroy(linger=0)
            raise

    @property
    def state(self) -> str:
        """What the last heartbeat said of the station; "unknown" before the first."""
        return self._state

    @property
    def heard(self) -> float:
        """When the last heartbeat came (or this object was made), on its own clock."""
        return self._heard

    @property
    def missing(self) -> int:
        """Decisions that the station has made and that have not come out of ``poll``."""
        return self._catchup.missing

    @property
    def begun(self) -> bool:
        """The station has answered HELLO; before that, what it decided is not known."""
        return self._catchup.begun

    @property
    def finished(self) -> bool:
        """The station has stopped, and nothing more is to be had of it."""
        waited = self._clock() - self._heard > STOPPED_FOR_S
        return self._state == STOPPED and (waited or (self.begun and not self.missing))

    def stats(self) -> dict[str, int]:
        """Counters: malformed messages, requests not sent, duplicates, decisions fetched."""
        return {
            "malformed": self._malformed,
            "unsent": self._unsent,
            "duplicates": self._catchup.duplicates,
            "fetched": self._catchup.fetched,
        }

    def poll(self, timeout_s: float) -> list[Event]:
        """What has happened, or nothing after at most ``timeout_s``; decisions are in order.

        Raises:
            ConfigError: the endpoint is that of another station.
        """
        self._catchup.delivered()
        end = self._clock() + timeout_s
        while True:
            self._ask()
            wait_s = min(max(0.0, end - self._clock()), LOOK_S)
            ready = dict(self._poller.poll(round(wait_s * 1000)))
            events = [event for socket in ready for event in self._drain(socket)]
            events += self._watch()
            if events or self._clock() >= end:
                return events

    def close(self) -> None:
        """Acknowledge what was dealt with, and disconnect."""
        if self._context.closed:
            return
        if self._control.poll(0, zmq.POLLOUT):
            self._send(self._catchup.farewell())
        for socket in self._sockets:
            socket.close(linger=LINGER_MS)
        self._context.term()

    def _connect(self, kind: int, endpoint: str, *topics: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        self._sockets.append(socket)
        socket.rcvhwm = RECEIVE_HWM
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.setsockopt(zmq.IPV6, int("[" in endpoint))
        socket.setsockopt(zmq.LINGER, LINGER_MS)
        socket.setsockopt(zmq.HEARTBEAT_IVL, PING_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, DEAD_MS)
        if not topics:
            socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued for a station that is not there
        for topic in topics:
            name = self._station
            prefix = wire.prefix(topic) if name is None else wire.topic(topic, name)
            socket.setsockopt(zmq.SUBSCRIBE, prefix)
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            raise ConfigError(f"{endpoint}: cannot connect: {error.strerror}") from error
        self._poller.register(socket, zmq.POLLIN)
        return socket

    def _ask(self) -> None:
        """Send what is due, if there is anybody to send it to."""
        if self._control.poll(0, zmq.POLLOUT):
            self._send(self._catchup.due(self._clock()))

    def _send(self, requests: list[dialogue.Request]) -> None:
        try:
            for request in requests:
                self._control.send_multipart(dialogue.encode(request), zmq.DONTWAIT)
        except zmq.Again:
            self._unsent += 1  # the connection has just gone; what matters is due again

    def _drain(self, socket: zmq.Socket[bytes]) -> Iterator[Event]:
        """What ``socket`` holds now, as far as it is of this contract; the rest is counted."""
        for _ in range(AT_ONCE):
            try:
                frames = socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                yield from self._understand(socket, frames)
            except WireError:
                self._malformed += 1

    def _understand(self, socket: zmq.Socket[bytes], frames: list[bytes]) -> Iterator[Event]:
        if socket is self._control:
            yield from self._reply(dialogue.decode_reply(frames))
        elif socket is self._maps and len(frames) == 4:
            yield wire.decode_heatmap(*frames[1:])
        elif socket is self._live and len(frames) == 3:
            yield from self._message(*frames)
        else:
            raise WireError(f"a message of {len(frames)} frames")

    def _message(self, topic: bytes, header: bytes, body: bytes) -> Iterator[Event]:
        if topic.startswith(wire.prefix(HEARTBEAT)):
            heartbeat = wire.decode_heartbeat(header, body)
            yield from self._beat(heartbeat)
        else:
            yield from self._catchup.live(wire.decode_decision(header, body))

    def _beat(self, heartbeat: Heartbeat) -> Iterator[Event]:
        state = heartbeat.body.state
        if self._lost or (self._state == STOPPED and state != STOPPED):
            self._catchup.reconnect()
            yield Back(state)
        elif self._state == UNKNOWN:
            yield Back(state)
        self._heard, self._lost, self._state = self._clock(), False, state
        self._catchup.beat(heartbeat)
        yield heartbeat

    def _reply(self, reply: dialogue.Reply) -> Iterator[Event]:
        if isinstance(reply, dialogue.Welcome):
            if self._station not in (None, reply.station):
                raise ConfigError(f"this is station {reply.station}, not {self._station}")
            self._silent_s = SILENT_BEATS * reply.heartbeat_ms / 1000
        yield from self._catchup.reply(reply)

    def _watch(self) -> list[Event]:
        silent = self._clock() - self._heard
        if self._lost or self._state == STOPPED or silent <= self._silent_s:
            return []
        self._lost = True
        return [Silent(silent)]


def unique_name() -> str:
    """A name for a consumer: host, process and moment."""
    name = f"{host.gethostname()[:32]}-{os.getpid()}-{time.monotonic_ns() % 10**9}"
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)
