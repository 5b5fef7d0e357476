"""The promise of an answer by the deadline, kept by a real daemon whose engine hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_lifecycle import Camera, Station, answer, doing

from efficientad_stream.core.ledger import Ledger
from efficientad_stream.runtime.deadline import LONGEST_S, SHORTEST_S, DeadlineKeeper
from efficientad_stream.runtime.fanout import Fanout

DEADLINE_MS = 60


def quiet(name: str, error: BaseException) -> None:
    raise AssertionError(name) from error


@pytest.mark.parametrize(
    ("age_us", "pause_s"),
    [(None, LONGEST_S), (0, LONGEST_S), (90_000, 0.01), (100_000, SHORTEST_S), (10**9, SHORTEST_S)],
)
def test_it_looks_when_the_oldest_is_due(age_us: int | None, pause_s: float) -> None:
    now = 10**15
    oldest = None if age_us is None else now - 1000 * age_us
    keeper = DeadlineKeeper(
        lambda: None, lambda: oldest, 100_000, on_failure=quiet, clock=lambda: now
    )
    assert keeper.pause_s() == pytest.approx(pause_s)


def test_with_a_short_deadline_it_looks_as_often() -> None:
    keeper = DeadlineKeeper(lambda: None, lambda: None, 5_000, on_failure=quiet)
    assert keeper.pause_s() == pytest.approx(0.005)


def hurried(folder: Path, act: Callable[[Station, threading.Event], None], frames: int) -> Station:
    """A station with a deadline and its keeper; the camera ends when all have been answered."""
    station = Station(folder, Camera(frames, lambda: None), doing(act))
    fanout = Fanout(
        "st1", Ledger(0, 1000 * DEADLINE_MS), station.journal, station.publisher, station.ring
    )
    station.fanout = fanout
    station.daemon._fanout = station.status._fanout = fanout
    keeper = DeadlineKeeper(
        fanout.answer_overdue, fanout.oldest_ns, 1000 * DEADLINE_MS, on_failure=station.mail.died
    )
    station.daemon._services = (*station.daemon._services, keeper)
    return station


def leave_when(station: Station, wait: Callable[[], object]) -> None:
    """The daemon is told to leave after ``wait``."""

    def tell() -> None:
        wait()
        station.mail.ended()

    threading.Thread(target=tell, daemon=True).start()


def test_an_engine_that_hangs_holds_up_no_verdict(tmp_path: Path) -> None:
    """Nine frames, of which four are in the engine; all are answered while it still hangs."""
    release, heads = threading.Event(), []

    def hang(station: Station, stop: threading.Event) -> None:
        from efficientad_stream.runtime.ring import batches

        for _batch in station.fanout.admitting(batches(station.ring, 4, 0, stop)):
            until = time.monotonic() + 10
            while station.fanout.head < 9 and time.monotonic() < until:
                time.sleep(0.001)
            heads.append(station.fanout.head)
            release.set()
            return

    station = hurried(tmp_path / "j", hang, 9)
    leave_when(station, lambda: release.wait(20))
    assert station.daemon.run() == 0
    assert heads == [9]
    assert [(seq, reason) for seq, _, reason in station.verdicts()] == [
        (seq, "late") for seq in range(1, 10)
    ]


def test_an_engine_in_time_is_left_alone(tmp_path: Path) -> None:
    station = hurried(tmp_path / "j", answer, 9)
    leave_when(station, lambda: time.sleep(3 * DEADLINE_MS / 1000))
    assert station.daemon.run() == 0
    reasons = [reason for *_, reason in station.verdicts()]
    assert len(reasons) == 9
    assert set(reasons) <= {"non_finite", "late"}  # late only if this machine stood still
