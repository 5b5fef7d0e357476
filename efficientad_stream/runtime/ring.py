"""The frame ring: bounded memory between one capture thread and the inspection thread.

A frame is written once, into a slot, and never copied on the way: capture commits the slot, the
inspection thread takes it, observers that need pixels borrow it, and the last holder's release
frees it. Lost frames travel as markers in the same order; they cost no slot.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from efficientad_stream.core.errors import FatalError
from efficientad_stream.core.types import Batch, Frame, FrameMeta, Reason
from efficientad_stream.runtime.slot import Allocate, Slot, allocate

Clock = Callable[[], int]
"""Monotonic nanoseconds."""

MAX_ENTRIES = 4096
"""Unlike markers that may wait; more mean that nobody takes anything any more."""
IDLE_S = 0.1
"""How long a consumer sleeps at most in an empty ring before it looks around."""


@dataclass(slots=True)
class _Entry:
    """A committed frame, or a run of ``count`` markers of the same loss."""

    meta: FrameMeta
    arrived_ns: int
    slot: Slot | None = None
    count: int = 1
    last: FrameMeta | None = None
    """Of a run of several: the newest marker as it was reported."""

    def absorbs(self, marker: FrameMeta) -> bool:
        """True if ``marker`` is what this run's next one would be, so that a count will do."""
        first = self.meta
        plain = first.part_id is marker.part_id is None and first.encoder is marker.encoder is None
        step = self.count if first.trigger else 0
        return (
            self.slot is None
            and plain
            and marker.loss is first.loss
            and marker.frame_id == first.frame_id + self.count
            and marker.trigger == first.trigger + step
        )

    def nth(self, k: int) -> FrameMeta:
        """Marker ``k`` of the run; its time lies evenly between the first and the newest."""
        first, last = self.meta, self.last
        if k == 0 or last is None:
            return first
        along = self.count - 1
        return replace(
            first,
            frame_id=first.frame_id + k,
            trigger=first.trigger + k if first.trigger else 0,
            captured_ns=first.captured_ns + (last.captured_ns - first.captured_ns) * k // along,
            captured_at_us=first.captured_at_us
            + (last.captured_at_us - first.captured_at_us) * k // along,
        )


class FrameRing:
    """``slots`` buffers, of which the producer always has one in hand.

    One producer calls ``acquire``, ``commit``, ``abandon``, ``mark`` and ``close``; one consumer
    calls ``take``, ``lend`` and ``release``; the keeper of deadlines calls ``take_overdue``;
    observers call ``release`` from their threads.
    Free slots are reused last in, first out: memory that is never needed is never touched.
    """

    def __init__(
        self,
        slots: int,
        memory: Allocate = allocate,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        if slots < 2:
            raise ValueError(f"a ring needs 2 slots or more, not {slots}")
        self._slots = [Slot(i, memory) for i in range(slots)]
        self._free = self._slots[::-1]
        self._queue: deque[_Entry] = deque()
        self._waiting = 0
        self._taken = 0
        self._lent = 0
        self._lend_limit = max(1, slots // 4)
        self._closed = False
        self._clock = clock
        lock = threading.Lock()
        self._filled = threading.Condition(lock)
        self._freed = threading.Condition(lock)
        self._lock = lock

    # The producer's side

    def acquire(self) -> Slot | None:
        """A free slot, or None if there is none now; the producer's until commit or abandon."""
        with self._lock:
            return self._free.pop() if self._free else None

    def wait_free(self, timeout_s: float) -> bool:
        """True as soon as a frame fits, or what was lost before it and with it; else False.

        For producers that can wait: markers need no slot, but they too are bounded.
        """
        with self._lock:
            return self._freed.wait_for(self._has_room, timeout_s)

    def commit(self, slot: Slot, meta: FrameMeta) -> None:
        """Hand over a filled slot. After ``close`` it is given up instead.

        Raises:
            ValueError: ``meta`` is not of the shape that was written into the slot.
        """
        pixels = slot.pixels
        shape = (meta.height, meta.width) + ((meta.channels,) if meta.channels != 1 else ())
        if pixels is None or pixels.shape != shape:
            raise ValueError(f"frame {meta.frame_id}: says {shape}, wrote another shape")
        with self._lock:
            if self._closed:
                self._set_free(slot)
                return
            slot.holds = 1
            self._queue.append(_Entry(meta, self._clock(), slot))
            self._waiting += 1
            self._filled.notify()

    def abandon(self, slot: Slot) -> None:
        """Give back an acquired slot unused."""
        with self._lock:
            self._set_free(slot)

    def mark(self, meta: FrameMeta, count: int = 1) -> None:
        """Report ``count`` lost frames with the ids from ``meta.frame_id`` on, in order.

        Their trigger counts on along with the id, unless it is 0. Markers always fit: like ones in
        a row are kept as a number. After ``close`` they are given up.

        Raises:
            FatalError: thousands of unlike losses wait; the consumer must be dead.
        """
        if meta.loss is None:
            raise ValueError(f"frame {meta.frame_id}: a marker needs its loss")
        with self._lock:
            if self._closed:
                return
            tail = self._queue[-1] if self._queue else None
            if tail is not None and tail.absorbs(meta):
                tail.count += count
                tail.last = meta
            elif len(self._queue) < MAX_ENTRIES:
                self._queue.append(_Entry(meta, self._clock(), None, count, meta))
            else:
                raise FatalError(f"inspection stands still: {self._waiting} frames wait for it")
            self._waiting += count
            self._filled.notify()

    def close(self) -> None:
        """Nothing more will come. What is in the ring can still be taken. May be called twice."""
        with self._lock:
            self._closed = True
            self._filled.notify_all()

    def shed(self, loss: Reason) -> int:
        """Turn all frames that nobody took yet into markers; returns how many."""
        with self._lock:
            count = 0
            for entry in self._queue:
                if entry.slot is not None:
                    entry.meta = replace(entry.meta, loss=loss)
                    self._drop_hold(entry.slot)
                    entry.slot = None
                    count += 1
            return count

    # The consumer's side

    @property
    def ended(self) -> bool:
        """True when the ring is closed and everything has been taken."""
        with self._lock:
            return self._closed and not self._queue

    def take(self, max_frames: int, max_wait_us: int, timeout_s: float) -> list[Frame]:
        """The next frames and markers, in order: at least one, or none after ``timeout_s``.

        Waits for more than one only until the oldest has been in the ring for ``max_wait_us``.
        Every frame taken is released once, by its slot.
        """
        with self._lock:
            self._filled.wait_for(lambda: self._closed or self._waiting > 0, timeout_s)
            while 0 < self._waiting < max_frames and self._free and not self._closed:
                left_ns = self._queue[0].arrived_ns + max_wait_us * 1000 - self._clock()
                if left_ns <= 0:
                    break
                self._filled.wait(left_ns / 1e9)
            return [self._pop() for _ in range(min(max_frames, self._waiting))]

    def take_overdue(self, before_ns: int, taken: int) -> list[Frame]:
        """As ``take``, but only what was captured by ``before_ns``, and without waiting.

        Args:
            before_ns: monotonic time.
            taken: how many frames the caller knows to have been taken. If there were more, somebody
                has frames in hand that come before these, and there are none.
        """
        found: list[Frame] = []
        with self._lock:
            while self._taken == taken + len(found) and self._queue:
                if self._queue[0].meta.captured_ns > before_ns:
                    break
                found.append(self._pop())
        return found

    @property
    def oldest_ns(self) -> int | None:
        """When the next frame or marker was captured, monotonic; None if none waits."""
        with self._lock:
            return self._queue[0].meta.captured_ns if self._queue else None

    def lend(self, slot: int) -> bool:
        """One more hold on a taken slot, for an observer; False if observers hold too many.

        Slow observers must lose pictures, not make the line lose frames: together they never keep
        more than a quarter of the slots.
        """
        with self._lock:
            held = self._held(slot)
            if not held.lent:
                if self._lent >= self._lend_limit:
                    return False
                held.lent = True
                self._lent += 1
            held.holds += 1
            return True

    def release(self, slot: int) -> None:
        """End one hold; the last one frees the slot. A marker has no slot (-1): nothing to do."""
        if slot < 0:
            return
        with self._lock:
            self._drop_hold(self._held(slot))

    def stats(self) -> Mapping[str, int]:
        """``slots``, ``free``, ``waiting`` frames and markers, slots ``lent`` to observers."""
        with self._lock:
            return {
                "slots": len(self._slots),
                "free": len(self._free),
                "waiting": self._waiting,
                "lent": self._lent,
            }

    # Under the lock

    def _has_room(self) -> bool:
        return bool(self._free) and len(self._queue) + 2 <= MAX_ENTRIES

    def _pop(self) -> Frame:
        entry = self._queue[0]
        self._waiting -= 1
        self._taken += 1
        self._freed.notify()
        if entry.slot is not None:
            self._queue.popleft()
            return Frame(entry.meta, entry.slot.pixels, entry.slot.index)
        frame = Frame(entry.meta)
        if entry.count == 1:
            self._queue.popleft()
        else:
            entry.meta = entry.nth(1)
            entry.count -= 1
        return frame

    def _held(self, index: int) -> Slot:
        slot = self._slots[index]
        if slot.holds < 1:
            raise RuntimeError(f"slot {index} is not held by anybody")
        return slot

    def _drop_hold(self, slot: Slot) -> None:
        slot.holds -= 1
        if slot.holds == 0:
            if slot.lent:
                slot.lent = False
                self._lent -= 1
            self._set_free(slot)

    def _set_free(self, slot: Slot) -> None:
        self._free.append(slot)
        self._freed.notify()


def batches(
    ring: FrameRing, max_frames: int, max_wait_us: int, stop: threading.Event
) -> Iterator[Batch]:
    """The ring as ``inspect`` reads it, until it has ended or ``stop`` is set.

    An empty batch follows as soon as the ring runs dry, so that the last part's verdict never
    waits for the next part.
    """
    busy = False
    while not (ring.ended or stop.is_set()):
        batch = tuple(ring.take(max_frames, max_wait_us, 0.0 if busy else IDLE_S))
        busy = bool(batch)
        yield batch
