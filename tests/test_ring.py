from __future__ import annotations

import threading
import time
import tracemalloc
from collections import deque

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from efficientad_stream.core.errors import FatalError
from efficientad_stream.core.types import Frame, FrameMeta, PixelArray, Reason
from efficientad_stream.runtime import ring as ring_module
from efficientad_stream.runtime.ring import FrameRing, batches
from efficientad_stream.runtime.slot import Slot

H, W = 4, 6


class Clock:
    def __init__(self) -> None:
        self.ns = 1_000

    def __call__(self) -> int:
        return self.ns


def meta(frame_id: int, loss: Reason | None = None, **more: object) -> FrameMeta:
    shape = {} if loss else {"height": H, "width": W, "channels": 1}
    times = {"captured_ns": frame_id * 1000, "captured_at_us": frame_id}
    return FrameMeta(frame_id=frame_id, loss=loss, **{**shape, **times, **more})  # type: ignore[arg-type]


def put(ring: FrameRing, frame_id: int) -> None:
    slot = ring.acquire()
    assert slot is not None
    slot.view(H, W, 1)[:] = frame_id % 256
    ring.commit(slot, meta(frame_id))


def ids(frames: list[Frame]) -> list[int]:
    return [frame.meta.frame_id for frame in frames]


class TestSlot:
    def test_memory_grows_and_never_shrinks(self) -> None:
        sizes: list[int] = []

        def allocate(nbytes: int) -> PixelArray:
            sizes.append(nbytes)
            return np.empty(nbytes, np.uint8)

        slot = Slot(0, allocate)
        assert slot.view(10, 20, 3).shape == (10, 20, 3)
        assert slot.view(10, 20, 1).shape == (10, 20)
        assert slot.view(5, 20, 3).shape == (5, 20, 3)
        assert sizes == [0, 600]
        slot.view(11, 20, 3)
        assert sizes == [0, 600, 660]

    def test_same_shape_is_the_same_array(self) -> None:
        slot = Slot(0)
        first = slot.view(8, 8, 3)
        assert slot.view(8, 8, 3) is first
        assert first.flags.c_contiguous
        assert first.flags.writeable

    def test_smaller_view_shares_the_memory(self) -> None:
        slot = Slot(0)
        large = slot.view(8, 8, 3)
        assert np.shares_memory(slot.view(4, 4, 1), large)


class TestWay:
    def test_pixels_arrive_where_they_were_written(self) -> None:
        ring = FrameRing(3)
        slot = ring.acquire()
        assert slot is not None
        written = slot.view(H, W, 3)
        written[:] = 7
        ring.commit(slot, meta(1, channels=3))
        (frame,) = ring.take(4, 0, 0)
        assert frame.pixels is written
        assert frame.slot == slot.index

    def test_a_wrong_shape_is_refused(self) -> None:
        ring = FrameRing(2)
        slot = ring.acquire()
        assert slot is not None
        with pytest.raises(ValueError, match="frame 1"):
            ring.commit(slot, meta(1))
        slot.view(H, W, 3)
        with pytest.raises(ValueError, match="frame 1"):
            ring.commit(slot, meta(1))

    def test_full_ring_gives_no_slot_until_one_is_released(self) -> None:
        ring = FrameRing(2)
        put(ring, 1)
        put(ring, 2)
        assert ring.acquire() is None
        assert ring.wait_free(0) is False
        first, second = ring.take(2, 0, 0)
        ring.release(first.slot)
        assert ring.wait_free(0) is True
        put(ring, 3)
        assert ring.acquire() is None
        ring.release(second.slot)
        assert ids(ring.take(2, 0, 0)) == [3]

    def test_abandoned_slot_is_free_again(self) -> None:
        ring = FrameRing(2)
        slots = [ring.acquire(), ring.acquire()]
        assert ring.acquire() is None
        assert slots[0] is not None
        ring.abandon(slots[0])
        assert ring.acquire() is slots[0]

    def test_markers_keep_their_place_between_frames(self) -> None:
        ring = FrameRing(4)
        put(ring, 1)
        ring.mark(meta(2, Reason.LOST_FRAME), 2)
        put(ring, 4)
        ring.mark(meta(5, Reason.OVERRUN))
        frames = ring.take(10, 0, 0)
        assert ids(frames) == [1, 2, 3, 4, 5]
        assert [f.meta.loss for f in frames] == [
            None, Reason.LOST_FRAME, Reason.LOST_FRAME, None, Reason.OVERRUN,
        ]  # fmt: skip
        assert [f.pixels is None for f in frames] == [False, True, True, False, True]

    def test_releasing_what_nobody_holds_is_a_defect(self) -> None:
        ring = FrameRing(2)
        put(ring, 1)
        (frame,) = ring.take(1, 0, 0)
        ring.release(frame.slot)
        with pytest.raises(RuntimeError, match="not held"):
            ring.release(frame.slot)
        ring.release(-1)  # a marker has no slot

    def test_end_comes_after_what_is_in_the_ring(self) -> None:
        ring = FrameRing(3)
        put(ring, 1)
        ring.mark(meta(2, Reason.OVERRUN))
        ring.close()
        ends = [ring.ended]
        assert ids(ring.take(1, 0, 0)) == [1]
        ends.append(ring.ended)
        assert ids(ring.take(1, 0, 0)) == [2]
        ends.append(ring.ended)
        assert ends == [False, False, True]
        assert ring.take(1, 0, 10) == []  # at once, not after ten seconds

    def test_one_slot_is_too_few(self) -> None:
        with pytest.raises(ValueError, match="2 slots"):
            FrameRing(1)


class TestMarkers:
    def test_a_long_outage_costs_one_entry_and_comes_out_whole(self) -> None:
        ring = FrameRing(2)
        for n in range(1, 100_001):
            ring.mark(meta(n, Reason.OVERRUN, trigger=n + 7))
        assert len(ring._queue) == 1
        frames = ring.take(100_000, 0, 0)
        assert ids(frames) == list(range(1, 100_001))
        assert {f.meta.trigger - f.meta.frame_id for f in frames} == {7}
        times = [f.meta.captured_ns for f in frames]
        assert times == sorted(times)
        assert times[0] == 1000
        assert times[-1] == pytest.approx(100_000_000, rel=0.01)

    @pytest.mark.parametrize(
        "second",
        [
            meta(2, Reason.LOST_FRAME),
            meta(3, Reason.OVERRUN),
            meta(2, Reason.OVERRUN, part_id="p"),
            meta(2, Reason.OVERRUN, encoder=5),
            meta(2, Reason.OVERRUN, trigger=9),
        ],
    )
    def test_what_differs_is_kept_apart(self, second: FrameMeta) -> None:
        ring = FrameRing(2)
        ring.mark(meta(1, Reason.OVERRUN))
        ring.mark(second)
        assert [f.meta for f in ring.take(9, 0, 0)] == [meta(1, Reason.OVERRUN), second]

    def test_a_ring_that_nobody_empties_is_fatal_not_endless(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ring_module, "MAX_ENTRIES", 3)
        ring = FrameRing(2)
        for n in (1, 3, 5):
            ring.mark(meta(n, Reason.OVERRUN))
        with pytest.raises(FatalError, match="stands still: 3 frames"):
            ring.mark(meta(7, Reason.OVERRUN))

    def test_a_marker_needs_a_loss(self) -> None:
        with pytest.raises(ValueError, match="loss"):
            FrameRing(2).mark(meta(1))

    def test_shed_turns_frames_into_markers_and_frees_their_slots(self) -> None:
        ring = FrameRing(3)
        put(ring, 1)
        ring.mark(meta(2, Reason.LOST_FRAME))
        put(ring, 3)
        assert ring.shed(Reason.STOPPED) == 2
        assert ring.stats()["free"] == 3
        assert [(f.meta.frame_id, f.meta.loss, f.slot) for f in ring.take(9, 0, 0)] == [
            (1, Reason.STOPPED, -1), (2, Reason.LOST_FRAME, -1), (3, Reason.STOPPED, -1),
        ]  # fmt: skip


class TestBatching:
    def test_a_frame_that_waited_long_enough_goes_alone(self) -> None:
        clock = Clock()
        ring = FrameRing(4, clock=clock)
        put(ring, 1)
        clock.ns += 2_000_000
        assert ids(ring.take(4, 2000, 60)) == [1]  # would hang for minutes if it waited

    def test_a_lone_frame_waits_no_longer_than_allowed(self) -> None:
        ring = FrameRing(4)
        start = time.monotonic()
        put(ring, 1)
        assert ids(ring.take(4, 20_000, 60)) == [1]
        assert 0.02 <= time.monotonic() - start < 5

    def test_company_ends_the_wait(self) -> None:
        ring = FrameRing(4)
        put(ring, 1)
        other = threading.Thread(target=put, args=(ring, 2))
        other.start()
        assert ids(ring.take(2, 60_000_000, 60)) == [1, 2]
        other.join(10)

    def test_no_wait_for_more_when_no_slot_is_left_to_bring_it(self) -> None:
        ring = FrameRing(2)
        put(ring, 1)
        put(ring, 2)
        assert ids(ring.take(4, 60_000_000, 60)) == [1, 2]

    def test_size_is_bounded(self) -> None:
        ring = FrameRing(6)
        for n in range(1, 6):
            put(ring, n)
        assert ids(ring.take(3, 0, 0)) == [1, 2, 3]
        assert ids(ring.take(3, 0, 0)) == [4, 5]

    def test_an_empty_ring_times_out(self) -> None:
        assert FrameRing(2).take(4, 1000, 0.01) == []

    def test_batches_drain_when_the_ring_runs_dry_and_end_with_it(self) -> None:
        ring = FrameRing(6)
        for n in (1, 2, 3):
            put(ring, n)
        source = batches(ring, 2, 0, threading.Event())
        assert [len(next(source)) for _ in range(3)] == [2, 1, 0]
        put(ring, 4)
        ring.close()
        assert [len(batch) for batch in source] == [1]

    def test_batches_stop_when_told(self) -> None:
        ring, stop = FrameRing(2), threading.Event()
        put(ring, 1)
        stop.set()
        assert list(batches(ring, 1, 0, stop)) == []


class TestLending:
    def test_slot_is_free_after_the_last_release(self) -> None:
        ring = FrameRing(4)
        put(ring, 1)
        (frame,) = ring.take(1, 0, 0)
        assert ring.lend(frame.slot)
        ring.release(frame.slot)
        assert ring.stats()["free"] == 3
        ring.release(frame.slot)
        assert ring.stats() == {"slots": 4, "free": 4, "waiting": 0, "lent": 0}

    def test_observers_never_hold_more_than_a_quarter(self) -> None:
        ring = FrameRing(8)
        for n in range(1, 5):
            put(ring, n)
        frames = ring.take(4, 0, 0)
        assert [ring.lend(f.slot) for f in frames] == [True, True, False, False]
        assert ring.lend(frames[0].slot)  # a second observer of the same frame costs nothing
        for frame in frames:
            ring.release(frame.slot)
        assert ring.stats()["free"] == 6
        ring.release(frames[0].slot)
        ring.release(frames[0].slot)
        put(ring, 5)
        (frame,) = ring.take(1, 0, 0)
        assert ring.lend(frame.slot)


class RingMachine(RuleBasedStateMachine):
    """The ring against a plain list: nothing lost, nothing twice, order kept, slots conserved."""

    SLOTS = 5

    def __init__(self) -> None:
        super().__init__()
        self.ring = FrameRing(self.SLOTS)
        self.expected: deque[tuple[int, Reason | None]] = deque()
        self.next_id = 1
        self.in_hand: list[Slot] = []
        self.taken: list[Frame] = []
        self.lent: list[int] = []

    @rule()
    def acquire(self) -> None:
        slot = self.ring.acquire()
        if slot is not None:
            assert slot not in self.in_hand
            self.in_hand.append(slot)

    @precondition(lambda self: self.in_hand)
    @rule()
    def commit(self) -> None:
        slot = self.in_hand.pop()
        slot.view(H, W, 1)[:] = self.next_id % 256
        self.ring.commit(slot, meta(self.next_id))
        self.expected.append((self.next_id, None))
        self.next_id += 1

    @precondition(lambda self: self.in_hand)
    @rule()
    def abandon(self) -> None:
        self.ring.abandon(self.in_hand.pop())

    @rule(loss=st.sampled_from([Reason.OVERRUN, Reason.LOST_FRAME]), count=st.integers(1, 4))
    def mark(self, loss: Reason, count: int) -> None:
        self.ring.mark(meta(self.next_id, loss), count)
        self.expected.extend((self.next_id + k, loss) for k in range(count))
        self.next_id += count

    @rule(size=st.integers(1, 7))
    def take(self, size: int) -> None:
        frames = self.ring.take(size, 0, 0)
        assert len(frames) == min(size, len(self.expected))
        for frame in frames:
            frame_id, loss = self.expected.popleft()
            assert (frame.meta.frame_id, frame.meta.loss) == (frame_id, loss)
            if loss is None:
                self.taken.append(frame)

    @precondition(lambda self: self.taken)
    @rule()
    def lend(self) -> None:
        if self.ring.lend(self.taken[0].slot):
            self.lent.append(self.taken[0].slot)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.taken) - 1))
        self.ring.release(self.taken.pop(index).slot)

    @precondition(lambda self: self.lent)
    @rule()
    def hand_back(self) -> None:
        self.ring.release(self.lent.pop())

    @rule()
    def shed(self) -> None:
        self.ring.shed(Reason.STOPPED)
        self.expected = deque((i, loss or Reason.STOPPED) for i, loss in self.expected)

    @invariant()
    def slots_are_conserved(self) -> None:
        queued = sum(loss is None for _, loss in self.expected)
        held = {frame.slot for frame in self.taken} | set(self.lent)
        stats = self.ring.stats()
        assert stats["free"] + len(self.in_hand) + queued + len(held) == self.SLOTS
        assert stats["waiting"] == len(self.expected)
        assert stats["lent"] <= 1  # a quarter of five

    @invariant()
    def pixels_stay_until_release(self) -> None:
        for frame in self.taken:
            assert frame.pixels is not None
            assert (frame.pixels == frame.meta.frame_id % 256).all()


RingMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRingMachine = RingMachine.TestCase


def test_two_threads_lose_nothing_and_memory_stays_flat() -> None:
    ring, total = FrameRing(8), 20_000
    seen: list[int] = []

    def produce() -> None:
        for n in range(1, total + 1):
            if n % 50 == 0:
                ring.mark(meta(n, Reason.LOST_FRAME))
                continue
            assert ring.wait_free(10)
            put(ring, n)
        ring.close()

    def consume(until: int) -> None:
        while len(seen) < until and not ring.ended:
            for frame in ring.take(4, 100, 1):
                seen.append(frame.meta.frame_id)
                if frame.pixels is not None:
                    assert frame.pixels[0, 0] == frame.meta.frame_id % 256
                ring.release(frame.slot)

    producer = threading.Thread(target=produce)
    producer.start()
    consume(2_000)  # everything is warm
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    consume(total + 1)
    grown = tracemalloc.take_snapshot().compare_to(before, "filename")
    tracemalloc.stop()
    producer.join(10)
    assert seen == list(range(1, total + 1))
    ours = [stat for stat in grown if stat.traceback[0].filename == ring_module.__file__]
    assert sum(stat.size_diff for stat in ours) < 20_000
    assert ring.stats()["free"] == 8
