"""Who listens to a station, and how far each of them is. Pure: time is an argument."""

from __future__ import annotations

from dataclasses import dataclass

MAX_CONSUMERS = 64
LIVE_NS = 5_000_000_000
"""A consumer that has said nothing for longer is not waited for; contract: an ACK a second."""
FORGET_NS = 60_000_000_000


@dataclass
class Consumer:
    """One connection that has said HELLO."""

    name: str
    heard_ns: int
    upto: int
    stage: str = "none"


class Consumers:
    """The bounded table of consumers, by the identity of their connection."""

    def __init__(self) -> None:
        self._known: dict[bytes, Consumer] = {}

    def hello(self, identity: bytes, name: str, last: int, now_ns: int) -> bool:
        """Take in a consumer that has everything up to ``last``; False if the table is full.

        A consumer of the same name on another connection has reconnected, and replaces itself.
        """
        for known, consumer in list(self._known.items()):
            silent = now_ns - consumer.heard_ns > FORGET_NS
            if silent or known == identity or consumer.name == name:
                del self._known[known]
        if len(self._known) >= MAX_CONSUMERS:
            return False
        self._known[identity] = Consumer(name, now_ns, last)
        return True

    def heard(self, identity: bytes, now_ns: int) -> None:
        """Something came from ``identity``."""
        if identity in self._known:
            self._known[identity].heard_ns = now_ns

    def ack(self, identity: bytes, upto: int, stage: str) -> None:
        """``identity`` has everything up to ``upto``."""
        if identity in self._known:
            consumer = self._known[identity]
            consumer.upto, consumer.stage = max(consumer.upto, upto), stage

    def behind(self, upto: int, now_ns: int) -> list[str]:
        """The names of live consumers that do not have everything up to ``upto``."""
        return [
            consumer.name
            for consumer in self._known.values()
            if consumer.upto < upto and now_ns - consumer.heard_ns <= LIVE_NS
        ]

    def describe(self, now_ns: int) -> list[dict[str, str | int]]:
        """The table for the status: name, upto, stage, milliseconds of silence."""
        return [
            {
                "consumer": consumer.name,
                "upto": consumer.upto,
                "stage": consumer.stage,
                "silent_ms": (now_ns - consumer.heard_ns) // 1_000_000,
            }
            for consumer in self._known.values()
        ]
