"""The fan-out: number, record, publish, show. One inspection at a time, in that order."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from efficientad_stream import logs
from efficientad_stream.core.errors import FatalError
from efficientad_stream.core.ledger import Ledger
from efficientad_stream.core.types import Batch, Frame, FrameMeta, Inspection, Reason, Verdict
from efficientad_stream.core.wire import encode_decision
from efficientad_stream.runtime.protocols import Observer

STUCK_S = 0.3
"""How long the end of the daemon waits for a verdict that is being recorded."""
WINDOW = 1024
"""Verdicts that the latency figures of the status are taken from."""


class Recorder(Protocol):
    """The journal as the fan-out uses it."""

    @property
    def epoch(self) -> int:
        """Identity of the journal."""

    def append(self, seq: int, header: bytes, body: bytes) -> None:
        """Record a verdict; FatalError if that fails."""


class Sender(Protocol):
    """The publisher as the fan-out uses it."""

    def send(self, header: bytes, body: bytes) -> None:
        """Publish a verdict that is recorded."""


class Lender(Protocol):
    """The frame ring as the fan-out uses it."""

    @property
    def oldest_ns(self) -> int | None:
        """When the next frame that waits was captured."""

    def lend(self, slot: int) -> bool:
        """One more hold on a slot, or False."""

    def release(self, slot: int) -> None:
        """End one hold."""

    def take_overdue(self, before_ns: int, taken: int) -> list[Frame]:
        """What waits and was captured by ``before_ns``; none unless ``taken`` were ever taken."""


class Fanout:
    """Delivers inspections: journal, then publisher, then observers; then the slot is free.

    What is not in the journal is not published: its failure ends the daemon. Observers come last
    and may lose what they have no room for; pixels are lent to those that need them and want the
    inspection.

    Args:
        station: its name.
        ledger: numbers the verdicts; begins at the journal's head.
        clock: monotonic nanoseconds.
        now_us: UTC microseconds, for people.
    """

    def __init__(
        self,
        station: str,
        ledger: Ledger,
        journal: Recorder,
        publisher: Sender,
        ring: Lender,
        *,
        observers: Sequence[Observer] = (),
        clock: Callable[[], int] = time.monotonic_ns,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._station = station
        self._ledger = ledger
        self._journal = journal
        self._publisher = publisher
        self._ring = ring
        self._observers = tuple(observers)
        self._clock, self._now_us = clock, now_us
        self._lock = threading.Lock()
        self._sealed = False
        self._tried: FrameMeta | None = None
        """The last frame whose verdict was to be recorded; open still if that failed."""
        self._counts: Counter[str] = Counter()
        self._scored = 0
        self._latencies = np.zeros(WINDOW, np.int64)
        self._withheld = logs.RateLimited("recorded too late to be said", level="error")
        self._too_late = logs.RateLimited("scored after its deadline, answered before")

    @property
    def head(self) -> int:
        """The last seq that was recorded."""
        return self._ledger.head

    def admitting(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """``batches``, each entered into the ledger before it is worked on."""
        for batch in batches:
            with self._lock:
                self._ledger.admit(frame.meta for frame in batch)
                if self._sealed:
                    self._answer_open()
            yield batch

    def deliver(self, inspection: Inspection) -> None:
        """Make ``inspection`` final and tell everybody; ends its hold on the slot.

        Raises:
            FatalError: it could not be recorded, and nothing was published.
        """
        with self._lock:
            try:
                if self._ledger.answered_before(inspection):
                    self._too_late.hit(frame_id=inspection.meta.frame_id, score=_score(inspection))
                elif not self._sealed:
                    self._publish(inspection)
            finally:
                self._ring.release(inspection.slot)

    def answer_overdue(self) -> None:
        """INVALID(late) for every frame whose deadline has come, inspected or still waiting.

        Called again and again by the keeper of deadlines, on its own thread: an engine that hangs
        holds up no verdict. What is being inspected is answered first, since it came first.

        Raises:
            FatalError: a verdict could not be recorded.
        """
        with self._lock:
            now_ns = self._clock()
            while not self._sealed and (meta := self._ledger.overdue(now_ns)) is not None:
                self._publish(self._without_score(meta, Reason.LATE), awaited=True)
            before_ns = self._ledger.due_if_captured_by(now_ns)
            if self._sealed or self._ledger.open or before_ns is None:
                return
            frames = self._ring.take_overdue(before_ns, self._ledger.admitted)
            self._ledger.admit(frame.meta for frame in frames)
            try:
                for frame in frames:
                    self._publish(self._without_score(frame.meta, Reason.LATE))
            finally:
                for frame in frames:
                    self._ring.release(frame.slot)

    def close_out(self, waiting: Iterable[FrameMeta]) -> int:
        """Answer all frames that have no verdict, and those ``waiting``: INVALID(stopped).

        INVALID(journal) is the frame whose verdict could not be recorded, if now it can.

        For the end of the daemon. A score that still comes is not published as a second verdict.
        Returns how many frames that were.

        Raises:
            FatalError: the journal failed, or a verdict is stuck on its way to the disk.
        """
        if not self._lock.acquire(timeout=STUCK_S):
            raise FatalError(f"the journal has not taken a verdict for {STUCK_S:g} s")
        try:
            self._sealed = True
            self._ledger.admit(waiting)
            return self._answer_open()
        finally:
            self._lock.release()

    def oldest_ns(self) -> int | None:
        """When the oldest frame that is owed a verdict was captured; None if none is."""
        with self._lock:
            open_frames = self._ledger.open
        return open_frames[0].captured_ns if open_frames else self._ring.oldest_ns

    def stats(self) -> Mapping[str, int]:
        """Verdicts by kind, INVALID by reason, and what went wrong in delivering them."""
        counts = dict(self._counts)
        if self._too_late.total:
            counts["scored_too_late"] = self._too_late.total
        return {**counts, "withheld": self._withheld.total}

    def latency_us(self) -> Mapping[str, int]:
        """Median and 99th percentile from capture to verdict, of the last verdicts on frames."""
        count = min(self._scored, WINDOW)
        if not count:
            return {}
        p50, p99 = np.percentile(self._latencies[:count], (50, 99))
        return {"p50": int(p50), "p99": int(p99), "of": count}

    def _answer_open(self) -> int:
        """INVALID for every frame that is owed a verdict; how many those were."""
        left = self._ledger.open
        for meta in left:
            why = Reason.JOURNAL if meta is self._tried else Reason.STOPPED
            self._publish(self._without_score(meta, why))
        return len(left)

    def _without_score(self, meta: FrameMeta, why: Reason) -> Inspection:
        """INVALID because of what the frame itself says, else of ``why``."""
        return Inspection(
            meta, Verdict.INVALID, meta.loss or why, None, None, decided_ns=self._clock()
        )

    def _publish(self, inspection: Inspection, *, awaited: bool = False) -> None:
        """Settle, record, publish, show; what is not recorded uses up no seq."""
        now_ns, self._tried = self._clock(), inspection.meta
        final = self._ledger.settle(inspection, now_ns)
        left_us = self._ledger.left_us(final.meta, now_ns)
        message = encode_decision(
            final, self._station, self._journal.epoch, self._now_us(), left_us
        )
        self._journal.append(final.seq, message.header, message.body)
        self._ledger.recorded(final, awaited=awaited)
        if self._still_in_time(final):
            self._publisher.send(message.header, message.body)
        self._count(final)
        for observer in self._observers:
            self._show(observer, final)

    def _still_in_time(self, final: Inspection) -> bool:
        """A PASS that the journal took too long for stays unsaid; silence rejects the part."""
        if (
            final.verdict is not Verdict.PASS
            or self._ledger.left_us(final.meta, self._clock()) != 0
        ):
            return True
        self._withheld.hit(seq=final.seq)
        return False

    def _show(self, observer: Observer, final: Inspection) -> None:
        """Offer ``final`` to an observer that wants it, with a hold on pixels if it needs them."""
        if not observer.wants(final):
            return
        if observer.needs_pixels and final.slot >= 0 and not self._ring.lend(final.slot):
            self._counts["not_lent"] += 1
            return
        observer.offer(final)

    def _count(self, final: Inspection) -> None:
        self._counts[final.verdict.name.lower()] += 1
        if final.reason is not None:
            self._counts[f"invalid_{final.reason.value}"] += 1
        if final.scores is not None:
            self._latencies[self._scored % WINDOW] = final.latency_us
            self._scored += 1


def _score(inspection: Inspection) -> float | None:
    return None if inspection.scores is None else inspection.scores.score
