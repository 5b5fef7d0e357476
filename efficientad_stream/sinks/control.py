"""The control socket: catch-up, acknowledgements, status; and the heartbeat.

Messages: ``core.dialogue``. One thread owns the socket; nothing that a peer does or leaves undone
blocks it or ends it.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import zmq

from efficientad_stream import logs
from efficientad_stream.core import dialogue, wire
from efficientad_stream.core.consumers import MAX_CONSUMERS, Consumers
from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.messages import HEARTBEAT, Header, HeartbeatBody, WireError
from efficientad_stream.core.types import Verdict
from efficientad_stream.runtime.sockets import bind
from efficientad_stream.runtime.worker import OnFailure, Worker

LOOK_S = 0.1
JOIN_S = 2.0
SEND_HWM = 4 * dialogue.MAX_GET
"""Replies kept for a peer that does not read; more are dropped and counted, and it asks again."""


class Records(Protocol):
    """The journal as the control socket reads it."""

    @property
    def epoch(self) -> int:
        """Identity of the journal."""

    @property
    def head(self) -> int:
        """The last seq."""

    @property
    def oldest(self) -> int:
        """The first seq that is kept."""

    def read(self, first: int, last: int, limit: int) -> Iterator[tuple[int, bytes, bytes]]:
        """Records (seq, header, body)."""


class Pulse(Protocol):
    """The publisher as the heartbeat uses it."""

    @property
    def published(self) -> int:
        """The last seq that was sent."""

    def beat(self, header: bytes, body: bytes) -> None:
        """Send a heartbeat."""


class Station(Protocol):
    """The daemon as it describes itself; called on the control thread, returns at once."""

    @property
    def name(self) -> str:
        """The station's name."""

    def state(self) -> str:
        """What it does now: "starting", "running" or "draining"."""

    def counters(self) -> Mapping[str, int]:
        """A few numbers for every heartbeat."""

    def status(self) -> Mapping[str, Any]:
        """Everything for the status; what JSON can carry."""


class Control:
    """ROUTER socket and heartbeat of one station."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        *,
        station: Station,
        records: Records,
        pulse: Pulse,
        heartbeat_ms: int,
        on_failure: OnFailure,
        clock: Callable[[], int] = time.monotonic_ns,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """Bind; ``start`` begins to serve.

        Raises:
            FatalError: the port is in use.
            ConfigError: the address is none of this machine.
        """
        self._station = station
        self._records = records
        self._pulse = pulse
        self._heartbeat_ms = heartbeat_ms
        self._clock = clock
        self._now_us = now_us
        self._run_first = records.head + 1
        self._started_at = now_us()
        self._recorded = records.head
        """The journal's head one heartbeat ago."""
        self._consumers = Consumers()
        self._progress = threading.Condition()
        """Guards the consumers; notified at every acknowledgement."""
        self._counts = {"requests": 0, "malformed": 0, "failed": 0}
        self._nonsense = logs.RateLimited("malformed request on the control socket", clock=clock)
        self._socket = context.socket(zmq.ROUTER)
        self._socket.maxmsgsize = dialogue.MAX_CONTROL_BYTES
        self._socket.sndhwm = SEND_HWM
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # or what is dropped is not told
        self._endpoint = bind(self._socket, endpoint, "publish.control")
        self._worker = Worker("control", self._run, on_failure)

    @property
    def endpoint(self) -> str:
        """Where the socket is bound."""
        return self._endpoint

    def start(self) -> None:
        """Begin to serve and to beat."""
        self._worker.start()

    def stop(self, timeout_s: float = JOIN_S) -> bool:
        """Say "stopped", end the thread, close the socket; False if the thread hangs."""
        ended = self._worker.stop(timeout_s)
        if ended:
            self._socket.close()
        return ended

    def wait_for_acks(self, upto: int, timeout_s: float) -> bool:
        """Wait until every live consumer has acknowledged ``upto``; False if time ran out first.

        So that a run that ends by itself does not end before its last verdicts have arrived.
        """

        def arrived() -> bool:
            return not self._consumers.behind(upto, self._clock())

        with self._progress:
            return self._progress.wait_for(arrived, timeout_s)

    def stats(self) -> dict[str, int]:
        """Counters for status and metrics."""
        return dict(self._counts)

    def _run(self, stop: threading.Event) -> None:
        due = self._clock()
        while not stop.is_set():
            now = self._clock()
            if now >= due:
                self._beat(self._station.state())
                due = max(due + self._heartbeat_ms * 1_000_000, now)
            wait_s = min((due - now) / 1e9, LOOK_S)
            if self._socket.poll(max(1, round(wait_s * 1000))):
                self._serve()
        self._beat("stopped")

    def _beat(self, state: str) -> None:
        # What was recorded a heartbeat ago has been sent since, or never will be: a subscriber that
        # lacks it may ask. What was recorded just now may be about to be sent.
        head = max(self._pulse.published, self._recorded)
        self._recorded = self._records.head
        header = Header(
            HEARTBEAT, Verdict.NONE, head, self._records.epoch, published_us=self._now_us()
        )
        body = HeartbeatBody(
            station=self._station.name,
            state=state,
            head=head,
            counters=dict(self._station.counters()),
        )
        self._pulse.beat(*wire.encode_heartbeat(header, body))

    def _serve(self) -> None:
        """Answer one request, whatever it is."""
        try:
            identity, *frames = self._socket.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            return
        self._counts["requests"] += 1
        try:
            request = dialogue.decode_request(frames)
        except WireError as error:
            self._counts["malformed"] += 1
            self._nonsense.hit(error=str(error))
            self._reply(identity, dialogue.Error(reason=str(error)))
            return
        with self._progress:
            self._consumers.heard(identity, self._clock())
        for reply in self._answer(identity, request):
            if not self._reply(identity, reply):
                break  # the rest of an answer with a hole in it would mislead; it asks again

    def _reply(self, identity: bytes, reply: dialogue.Reply) -> bool:
        """Send ``reply``; False, and counted, if the peer is gone or its queue is full."""
        try:
            self._socket.send_multipart([identity, *dialogue.encode(reply)], zmq.DONTWAIT)
        except zmq.ZMQError as error:
            if error.errno not in (errno.EAGAIN, errno.EHOSTUNREACH):
                raise
            self._counts["failed"] += 1
            return False
        return True

    def _answer(self, identity: bytes, request: dialogue.Request) -> Iterator[dialogue.Reply]:
        if isinstance(request, dialogue.Hello):
            yield self._welcome(identity, request)
        elif isinstance(request, dialogue.Get):
            yield from self._fetch(request)
        elif isinstance(request, dialogue.Ack):
            with self._progress:
                self._consumers.ack(identity, request.upto, request.stage)
                self._progress.notify_all()
            yield dialogue.Acked(upto=request.upto)
        else:
            yield self._status()

    def _welcome(self, identity: bytes, hello: dialogue.Hello) -> dialogue.Reply:
        head = self._records.head
        last = hello.last if hello.last <= head else 0  # it comes from another epoch
        with self._progress:
            taken = self._consumers.hello(identity, hello.consumer, last, self._clock())
        if not taken:
            return dialogue.Error(reason=f"HELLO: {MAX_CONSUMERS} consumers are connected already")
        return dialogue.Welcome(
            station=self._station.name,
            epoch=self._records.epoch,
            head=head,
            oldest=self._records.oldest,
            state=self._station.state(),
            heartbeat_ms=self._heartbeat_ms,
            run_first=self._run_first,
            started_at=self._started_at,
        )

    def _fetch(self, get: dialogue.Get) -> Iterator[dialogue.Reply]:
        """The records, then END; or GAP, if the first of them is no longer kept."""
        try:
            records = list(self._records.read(get.first, get.last, dialogue.MAX_GET))
        except ArtifactError as error:
            self._counts["failed"] += 1
            logs.get().error("journal cannot be read", error=str(error))
            yield dialogue.Error(reason=f"GET: {error}")
            return
        oldest = self._records.oldest
        if (records and records[0][0] != get.first) or (not records and get.first < oldest):
            yield dialogue.Gap(oldest=oldest)
            return
        for _, header, body in records:
            yield dialogue.Record(header, body)
        yield dialogue.End(last=records[-1][0] if records else self._records.head)

    def _status(self) -> dialogue.Status:
        with self._progress:
            consumers = self._consumers.describe(self._clock())
        return dialogue.Status(
            {
                "station": self._station.name,
                "state": self._station.state(),
                "epoch": self._records.epoch,
                "head": self._records.head,
                "oldest": self._records.oldest,
                "consumers": consumers,
                "control": self.stats(),
                **self._station.status(),
            }
        )
