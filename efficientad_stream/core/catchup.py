"""The consumer's half of the dialogue: when to say HELLO, what to GET, what to ACK. Pure.

Times are monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from efficientad_stream.core import wire
from efficientad_stream.core.dialogue import (
    Ack,
    End,
    Error,
    Gap,
    Get,
    Hello,
    Record,
    Reply,
    Request,
    Welcome,
)
from efficientad_stream.core.messages import Decision, Heartbeat
from efficientad_stream.core.sequencer import Lost, NewEpoch, Sequencer, Start

HELLO_AGAIN_S = 0.5
GET_AGAIN_S = 1.0
ACK_EVERY_S = 0.05
ACK_ALIVE_S = 1.0
"""An ACK with nothing new in it tells the station that it is still worth waiting for us."""
NEVER = float("-inf")


@dataclass(frozen=True)
class Refused:
    """The station could not serve a request."""

    reason: str


Outcome = Decision | Lost | NewEpoch | Refused


class CatchUp:
    """Keeps one consumer complete: what comes in, what goes out, and when."""

    def __init__(
        self, consumer: str, start: Start | int, stage: str, since_us: int | None = None
    ) -> None:
        self._consumer = consumer
        self._stage = stage
        self._sequencer = Sequencer(start, since_us)
        self._welcomed = False
        self._hello_at = self._get_at = self._ack_at = NEVER
        self._asked: Get | None = None
        self._delivered = 0
        self._acked = -1
        self.fetched = 0
        """Decisions that came from the journal."""

    @property
    def duplicates(self) -> int:
        """Decisions that came more than once."""
        return self._sequencer.duplicates

    @property
    def missing(self) -> int:
        """How many decisions the station has made that have not come out here."""
        return self._sequencer.behind

    @property
    def begun(self) -> bool:
        """The station has said where it stands; before that nothing can come out."""
        return self._sequencer.epoch is not None

    def reconnect(self) -> None:
        """The station has been away: begin again with HELLO."""
        self._welcomed = False
        self._asked = None

    def delivered(self) -> None:
        """Everything that has come out so far has been dealt with, and may be acknowledged."""
        if self._sequencer.epoch is not None:
            self._delivered = self._sequencer.next - 1

    def due(self, now: float) -> list[Request]:
        """What to send now."""
        if not self._welcomed or self._sequencer.stale:
            if now - self._hello_at < HELLO_AGAIN_S:
                return []
            self._hello_at = now
            return [Hello(consumer=self._consumer, last=self._delivered)]
        requests: list[Request] = []
        want = self._sequencer.missing()
        if want is not None and (self._asked is None or now - self._get_at >= GET_AGAIN_S):
            self._asked, self._get_at = want, now
            requests.append(want)
        silent = now - self._ack_at
        if silent >= (ACK_EVERY_S if self._delivered > self._acked else ACK_ALIVE_S):
            self._acked, self._ack_at = self._delivered, now
            requests.append(Ack(upto=self._delivered, stage=self._stage))
        return requests

    def farewell(self) -> list[Request]:
        """What to send last, when everything that came out has been dealt with."""
        self.delivered()
        if not self._welcomed or self._delivered <= self._acked:
            return []
        return [Ack(upto=self._delivered, stage=self._stage)]

    def live(self, decision: Decision) -> list[Outcome]:
        """A decision came from the decisions socket."""
        return list(self._sequencer.offer(decision))

    def beat(self, heartbeat: Heartbeat) -> None:
        """A heartbeat came; it tells of decisions that did not."""
        if not self._sequencer.head(heartbeat.header.epoch, heartbeat.header.seq):
            self._welcomed = False

    def reply(self, reply: Reply) -> list[Outcome]:
        """The station has answered.

        Raises:
            WireError: a record is malformed.
        """
        if isinstance(reply, Record):
            decision = wire.decode_decision(reply.header, reply.body)
            self.fetched += 1
            return list(self._sequencer.offer(decision))
        if isinstance(reply, Welcome):
            self._welcomed, self._asked, self._acked = True, None, -1
            return list(self._sequencer.welcome(reply))
        if isinstance(reply, Error):
            return [Refused(reply.reason)]
        if isinstance(reply, Gap):
            self._asked = None
            return list(self._sequencer.gap(reply.oldest))
        if isinstance(reply, End) and self._asked and self._sequencer.next > self._asked.first:
            self._asked = None  # an END that brought nothing is asked again, but not at once
        return []
