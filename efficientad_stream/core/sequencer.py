"""Every decision once and in order, whatever way it came. Pure.

The consumer's side of the contract: live decisions and records from the journal go in as they
arrive, decisions come out by seq, and it says what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from efficientad_stream.core.dialogue import MAX_GET, Get, Welcome
from efficientad_stream.core.messages import Decision

MAX_WAITING = 20_000
"""Decisions held while an earlier one is missing; those beyond are fetched from the journal."""


class Start(Enum):
    """Where a consumer begins that has never seen the station."""

    NEW = "new"
    """With what is decided from now on; with the whole run if the daemon starts after us."""
    RUN = "run"
    """With the first decision of the daemon's present run."""
    ALL = "all"
    """With the oldest record that the journal keeps."""


@dataclass(frozen=True)
class Lost:
    """Decisions ``first`` to ``last`` of ``epoch`` are no longer kept by the station."""

    epoch: int
    first: int
    last: int


@dataclass(frozen=True)
class NewEpoch:
    """The station goes on with a new journal; seq begins again."""

    epoch: int


class Sequencer:
    """Puts the decisions of one station into order."""

    def __init__(self, start: Start | int, since_us: int | None = None) -> None:
        """Nothing has come yet.

        Args:
            start: where to begin; a number is the first seq wanted.
            since_us: when this consumer began, UTC microseconds: a daemon that started later has
                decided nothing that is old to us.
        """
        self._start = start
        self._since_us = since_us
        self._waiting: dict[int, Decision] = {}
        self._early: list[Decision] = []
        """Of an epoch that no WELCOME has named yet."""
        self._head = 0
        self.epoch: int | None = None
        self.next = 0
        """The seq that comes out next; 0 until the first WELCOME."""
        self.duplicates = 0

    @property
    def stale(self) -> bool:
        """True if decisions have come whose epoch only a WELCOME can explain."""
        return bool(self._early)

    @property
    def behind(self) -> int:
        """How many decisions up to the head have not come out."""
        return 0 if self.epoch is None else max(0, self._head - self.next + 1)

    def welcome(self, welcome: Welcome) -> list[Decision | Lost | NewEpoch]:
        """The station has said where it stands."""
        out: list[Decision | Lost | NewEpoch] = []
        if self.epoch is None:
            self.next = self._begin(welcome)
            self.epoch = welcome.epoch
        elif welcome.epoch != self.epoch:
            out += self.gap(self._head + 1)  # a station serves only its newest epoch
            out.append(NewEpoch(welcome.epoch))
            self.epoch, self.next, self._head = welcome.epoch, welcome.oldest, 0
        self.head(welcome.epoch, welcome.head)
        early, self._early = self._early, []
        for decision in early:
            out += self.offer(decision)
        return out

    def offer(self, decision: Decision) -> list[Decision]:
        """A decision has come, live or as a record: the decisions that it lets out."""
        header = decision.header
        if self.epoch is None or header.epoch > self.epoch:
            if len(self._early) < MAX_WAITING:
                self._early.append(decision)
            return []
        if header.epoch < self.epoch or header.seq < self.next or header.seq in self._waiting:
            self.duplicates += 1
            return []
        self._head = max(self._head, header.seq)
        if header.seq == self.next or len(self._waiting) < MAX_WAITING:
            self._waiting[header.seq] = decision
        return self._release()

    def head(self, epoch: int, seq: int) -> bool:
        """The station says that ``seq`` is its head; False if only a new HELLO can tell more."""
        if epoch == self.epoch:
            self._head = max(self._head, seq)
        return epoch == self.epoch

    def gap(self, oldest: int) -> list[Decision | Lost | NewEpoch]:
        """The station no longer keeps what comes before ``oldest``."""
        if self.epoch is None or oldest <= self.next:
            return []
        first, out = self.next, list[Decision | Lost | NewEpoch]()
        held = [self._waiting.pop(seq) for seq in sorted(self._waiting) if seq < oldest]
        for decision in held:
            if decision.header.seq > first:
                out.append(Lost(self.epoch, first, decision.header.seq - 1))
            out.append(decision)
            first = decision.header.seq + 1
        if first < oldest:
            out.append(Lost(self.epoch, first, oldest - 1))
        self.next = oldest
        return out + self._release()

    def missing(self) -> Get | None:
        """What to ask the station for next, if anything."""
        if self.epoch is None or self.next > self._head:
            return None
        last = min(self._waiting) - 1 if self._waiting else self._head
        return Get(first=self.next, last=min(last, self.next + MAX_GET - 1))

    def _begin(self, welcome: Welcome) -> int:
        if isinstance(self._start, int):
            return max(1, self._start)
        if self._start is Start.ALL:
            return welcome.oldest
        later = self._since_us is not None and welcome.started_at >= self._since_us
        first = welcome.run_first if later or self._start is Start.RUN else welcome.head + 1
        return min([first, *(d.header.seq for d in self._early if d.header.epoch == welcome.epoch)])

    def _release(self) -> list[Decision]:
        out = []
        while self.next in self._waiting:
            out.append(self._waiting.pop(self.next))
            self.next += 1
        return out
