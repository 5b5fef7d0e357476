from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from efficientad_stream.core import wire
from efficientad_stream.core.errors import FatalError
from efficientad_stream.core.ledger import Ledger
from efficientad_stream.core.types import (
    Batch,
    Frame,
    FrameMeta,
    Inspection,
    Reason,
    RecipeId,
    Scores,
    Verdict,
)
from efficientad_stream.runtime.fanout import Fanout
from efficientad_stream.runtime.ring import FrameRing
from efficientad_stream.sinks.journal import Journal

US = 1000


class Clock:
    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


class Wire:
    """Collects what is sent, and looks whether the journal had it before."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.sent: list[tuple[int, str, str | None]] = []

    def send(self, header: bytes, body: bytes) -> None:
        decision = wire.decode_decision(header, body)
        seq = decision.header.seq
        assert [(seq, header, body)] == list(self.journal.read(seq, seq, 1))
        self.sent.append((seq, decision.header.verdict.name, decision.body.reason))


class Keeper:
    """An observer that keeps what it is offered until told to let go."""

    needs_map = False

    def __init__(self, ring: FrameRing, needs_pixels: bool) -> None:
        self.ring = ring
        self.needs_pixels = needs_pixels
        self.kept: list[Inspection] = []
        self.wanted = set(Verdict)

    def wants(self, inspection: Inspection) -> bool:
        return inspection.verdict in self.wanted

    def offer(self, inspection: Inspection) -> None:
        self.kept.append(inspection)

    def let_go(self) -> None:
        for inspection in self.kept:
            self.ring.release(inspection.slot)
        self.kept.clear()

    def stats(self) -> Mapping[str, int]:
        return {"dropped": 0}


class Station:
    """A fan-out with a real journal and a real ring."""

    def __init__(self, folder: Path, deadline_us: int = 0) -> None:
        self.journal = Journal.open(folder, 1 << 20, 1000, 8, 1)
        self.clock = Clock()
        self.wire = Wire(self.journal)
        self.ring = FrameRing(8)
        self.pixels = Keeper(self.ring, needs_pixels=True)
        self.figures = Keeper(self.ring, needs_pixels=False)
        self.fanout = Fanout(
            "st1",
            Ledger(self.journal.head, deadline_us),
            self.journal,
            self.wire,
            self.ring,
            observers=(self.pixels, self.figures),
            clock=self.clock,
            now_us=lambda: 1,
        )

    def frame(self, n: int) -> Frame:
        """Frame ``n``, committed, taken and admitted."""
        slot = self.ring.acquire()
        assert slot is not None
        slot.view(2, 2, 1)
        self.ring.commit(slot, FrameMeta(n, self.clock.ns, 0, 2, 2, 1))
        return self.admit(self.ring.take(1, 0, 0)[0])

    def admit(self, frame: Frame) -> Frame:
        assert list(self.fanout.admitting([(frame,)])) == [(frame,)]
        return frame

    def inspection(self, frame: Frame, score: float = 0.5) -> Inspection:
        verdict = Verdict.PASS if score < 1 else Verdict.FAIL
        scores = Scores(score, score, score, np.zeros((2, 2), np.float32))
        return Inspection(
            frame.meta, verdict, None, 1.0, RecipeId("r", 1, "0" * 64), scores, self.clock.ns,
            slot=frame.slot, pixels=frame.pixels,
        )  # fmt: skip


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    made = Station(tmp_path / "journal")
    yield made
    made.journal.close()


def test_recorded_then_published_then_shown(station: Station) -> None:
    for n, score in enumerate((0.1, 2.0), 1):
        station.fanout.deliver(station.inspection(station.frame(n), score))
    assert station.wire.sent == [(1, "PASS", None), (2, "FAIL", None)]
    assert [i.seq for i in station.figures.kept] == [1, 2]
    assert station.fanout.stats() == {"pass": 1, "fail": 1, "withheld": 0}


def test_seq_goes_on_with_the_journal(tmp_path: Path) -> None:
    for first in (1, 3):
        station = Station(tmp_path / "journal")
        for n in range(2):
            station.fanout.deliver(station.inspection(station.frame(n)))
        assert [seq for seq, *_ in station.wire.sent] == [first, first + 1]
        station.journal.close()


def test_slot_is_free_when_the_last_observer_lets_go(station: Station) -> None:
    station.fanout.deliver(station.inspection(station.frame(1)))
    assert station.ring.stats()["free"] == 7
    station.pixels.let_go()
    assert station.ring.stats()["free"] == 8


def test_slow_observers_lose_pictures_and_the_line_loses_nothing(station: Station) -> None:
    for n in range(1, 7):
        station.fanout.deliver(station.inspection(station.frame(n)))
    assert [i.seq for i in station.pixels.kept] == [1, 2]  # a quarter of eight slots
    assert [i.seq for i in station.figures.kept] == [1, 2, 3, 4, 5, 6]
    assert station.fanout.stats()["not_lent"] == 4
    assert station.ring.stats()["free"] == 6


def test_pixels_are_lent_only_for_what_is_wanted(station: Station) -> None:
    station.pixels.wanted = {Verdict.FAIL}
    for n in range(1, 7):
        station.fanout.deliver(station.inspection(station.frame(n), 2.0 if n == 6 else 0.5))
    assert [i.seq for i in station.pixels.kept] == [6]
    assert "not_lent" not in station.fanout.stats()
    assert station.ring.stats()["lent"] == 1


def test_marker_has_no_pixels_to_lend(station: Station) -> None:
    marker = station.admit(Frame(FrameMeta(1, 0, 0, loss=Reason.OVERRUN)))
    station.fanout.deliver(
        Inspection(marker.meta, Verdict.INVALID, Reason.OVERRUN, 1.0, None, decided_ns=0)
    )
    assert station.wire.sent == [(1, "INVALID", "overrun")]
    assert station.pixels.kept[0].slot == -1
    assert station.fanout.stats()["invalid_overrun"] == 1
    assert station.fanout.latency_us() == {}


def test_what_is_not_recorded_is_not_published(station: Station) -> None:
    inspection = station.inspection(station.frame(1))
    station.journal.append(1, bytes(32), b"{}")  # so that seq 1 cannot be recorded again
    with pytest.raises(FatalError, match="record 1 cannot follow 1"):
        station.fanout.deliver(inspection)
    assert station.wire.sent == []
    assert station.pixels.kept == []
    assert station.ring.stats()["free"] == 8


def test_one_record_that_fails_leaves_the_seq_to_the_verdicts_after_it(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, full = station.journal.append, [True]

    def fill_up_once(seq: int, header: bytes, body: bytes) -> None:
        if full and full.pop():
            raise FatalError("journal: No space left on device")
        append(seq, header, body)

    monkeypatch.setattr(station.journal, "append", fill_up_once)
    frames = [station.frame(n) for n in (1, 2)]
    with pytest.raises(FatalError, match="No space left"):
        station.fanout.deliver(station.inspection(frames[0]))
    assert station.fanout.head == 0
    assert station.fanout.close_out([FrameMeta(3, 0, 0)]) == 3
    assert station.wire.sent == [
        (1, "INVALID", "journal"),
        (2, "INVALID", "stopped"),
        (3, "INVALID", "stopped"),
    ]
    assert station.fanout.head == station.journal.head == 3


class TestDeadline:
    @pytest.fixture
    def station(self, tmp_path: Path) -> Iterator[Station]:
        made = Station(tmp_path / "journal", deadline_us=100)
        yield made
        made.journal.close()

    def test_late_at_delivery_is_invalid(self, station: Station) -> None:
        inspection = station.inspection(station.frame(1))  # decided in time
        station.clock.ns = 100 * US
        station.fanout.deliver(inspection)
        assert station.wire.sent == [(1, "INVALID", "late")]

    def test_what_is_left_is_on_the_wire(self, station: Station) -> None:
        inspection = station.inspection(station.frame(1))
        station.clock.ns = 30 * US
        station.fanout.deliver(inspection)
        ((_, header, _),) = station.journal.read(1, 1, 1)
        assert wire.unpack_header(header).deadline_us == 70

    def test_pass_is_not_said_if_recording_took_too_long(
        self, station: Station, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        append = station.journal.append

        def slowly(seq: int, header: bytes, body: bytes) -> None:
            append(seq, header, body)
            station.clock.ns += 100 * US

        monkeypatch.setattr(station.journal, "append", slowly)
        station.fanout.deliver(station.inspection(station.frame(1)))
        station.fanout.deliver(station.inspection(station.frame(2), score=3.0))
        assert station.wire.sent == [(2, "FAIL", None)]  # to reject is right at any time
        assert station.fanout.stats()["withheld"] == 1
        assert station.journal.head == 2


class TestCloseOut:
    def test_everything_open_is_answered_in_order(self, station: Station) -> None:
        frames = [station.frame(n) for n in (1, 2, 3)]
        station.fanout.deliver(station.inspection(frames[0]))
        waiting = [FrameMeta(4, 0, 0), FrameMeta(5, 0, 0, loss=Reason.LOST_FRAME)]
        assert station.fanout.close_out(waiting) == 4
        assert station.wire.sent == [
            (1, "PASS", None),
            (2, "INVALID", "stopped"),
            (3, "INVALID", "stopped"),
            (4, "INVALID", "stopped"),
            (5, "INVALID", "lost_frame"),
        ]

    def test_a_score_that_comes_afterwards_is_no_second_verdict(self, station: Station) -> None:
        frame = station.frame(1)
        station.fanout.close_out(())
        station.fanout.deliver(station.inspection(frame))
        assert station.wire.sent == [(1, "INVALID", "stopped")]
        assert station.ring.stats()["free"] == 8

    def test_what_is_taken_in_afterwards_is_answered_too(self, station: Station) -> None:
        station.fanout.close_out(())
        frame = station.frame(1)
        station.fanout.deliver(station.inspection(frame))
        assert station.wire.sent == [(1, "INVALID", "stopped")]
        assert station.fanout.head == 1

    def test_a_disk_that_hangs_does_not_hold_up_the_end(
        self, station: Station, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        append, writing, release = station.journal.append, threading.Event(), threading.Event()

        def hang(seq: int, header: bytes, body: bytes) -> None:
            writing.set()
            assert release.wait(30)
            append(seq, header, body)

        monkeypatch.setattr(station.journal, "append", hang)
        inspection = station.inspection(station.frame(1))
        thread = threading.Thread(target=station.fanout.deliver, args=(inspection,))
        thread.start()
        assert writing.wait(10)
        with pytest.raises(FatalError, match="has not taken a verdict"):
            station.fanout.close_out(())
        release.set()
        thread.join(10)
        assert station.wire.sent == [(1, "PASS", None)]

    def test_nothing_open_nothing_said(self, station: Station) -> None:
        station.fanout.deliver(station.inspection(station.frame(1)))
        assert station.fanout.close_out(()) == 0
        assert len(station.wire.sent) == 1


def test_batches_are_admitted_before_they_are_worked_on(station: Station) -> None:
    batch: Batch = (Frame(FrameMeta(1, 0, 0)), Frame(FrameMeta(2, 0, 0)))
    flow = station.fanout.admitting(iter([batch, ()]))
    assert next(flow) is batch
    assert station.fanout.close_out(()) == 2


def test_latency_figures(station: Station) -> None:
    for n, latency_us in enumerate((100, 200, 300), 1):
        frame = station.frame(n)
        station.clock.ns += latency_us * US
        station.fanout.deliver(station.inspection(frame))
        station.pixels.let_go()
    assert station.fanout.latency_us() == {"p50": 200, "p99": 298, "of": 3}


@pytest.fixture
def hurried(tmp_path: Path) -> Iterator[Station]:
    made = Station(tmp_path / "journal", deadline_us=500)
    yield made
    made.journal.close()


def put(station: Station, n: int) -> None:
    """Frame ``n``, committed and waiting in the ring."""
    slot = station.ring.acquire()
    assert slot is not None
    slot.view(2, 2, 1)
    station.ring.commit(slot, FrameMeta(n, station.clock.ns, 0, 2, 2, 1))


def test_what_is_overdue_is_answered_in_the_engine_and_in_the_ring(hurried: Station) -> None:
    inspected = [hurried.frame(n) for n in (1, 2)]
    put(hurried, 3)
    hurried.ring.mark(FrameMeta(4, hurried.clock.ns, 0, loss=Reason.LOST_FRAME))
    hurried.clock.ns = 400 * US
    put(hurried, 5)
    hurried.fanout.answer_overdue()
    assert hurried.wire.sent == []
    hurried.clock.ns = 500 * US
    assert hurried.fanout.oldest_ns() == 0
    hurried.fanout.answer_overdue()
    late = ("INVALID", "late")
    assert hurried.wire.sent == [(1, *late), (2, *late), (3, *late), (4, "INVALID", "lost_frame")]
    assert hurried.fanout.oldest_ns() == 400 * US
    assert hurried.ring.stats()["free"] == 5  # 1 and 2 are being inspected, 5 waits
    for one in inspected:
        hurried.fanout.deliver(hurried.inspection(one))
    (last,) = hurried.ring.take(4, 0, 0)
    hurried.fanout.deliver(hurried.inspection(hurried.admit(last)))
    assert hurried.wire.sent[4:] == [(5, "PASS", None)]
    assert hurried.fanout.stats() == {
        "invalid": 4, "invalid_late": 3, "invalid_lost_frame": 1, "pass": 1, "scored_too_late": 2,
        "withheld": 0,
    }  # fmt: skip
    hurried.pixels.let_go()
    assert hurried.ring.stats()["free"] == 8
    assert hurried.fanout.oldest_ns() is None


def test_frames_in_hand_come_before_those_in_the_ring(hurried: Station) -> None:
    """Taken by the inspection thread and not entered yet: what waits behind must wait."""
    put(hurried, 1)
    (first,) = hurried.ring.take(1, 0, 0)
    put(hurried, 2)
    hurried.clock.ns = 10_000 * US
    hurried.fanout.answer_overdue()
    assert hurried.wire.sent == []
    hurried.admit(first)
    hurried.fanout.answer_overdue()
    assert [seq for seq, *_ in hurried.wire.sent] == [1, 2]


def test_after_the_end_nothing_is_overdue(hurried: Station) -> None:
    hurried.frame(1)
    hurried.fanout.close_out([])
    put(hurried, 2)
    hurried.clock.ns = 10_000 * US
    hurried.fanout.answer_overdue()
    assert hurried.wire.sent == [(1, "INVALID", "stopped")]


def test_overdue_frames_that_cannot_be_recorded_give_back_their_slots(hurried: Station) -> None:
    put(hurried, 1)
    hurried.clock.ns = 500 * US
    hurried.journal.close()
    with pytest.raises(FatalError):
        hurried.fanout.answer_overdue()
    assert hurried.wire.sent == []
    assert hurried.ring.stats()["free"] == 8
