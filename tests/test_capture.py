from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from efficientad_stream import config
from efficientad_stream.core.errors import ConfigError, FatalError, TransientError
from efficientad_stream.core.types import Frame, FrameMeta, Reason
from efficientad_stream.runtime import capture as capture_module
from efficientad_stream.runtime import ring as ring_module
from efficientad_stream.runtime.capture import LONGEST_PAUSE_S, CameraState, Capture
from efficientad_stream.runtime.protocols import SourceEnded, Writable
from efficientad_stream.runtime.ring import FrameRing
from efficientad_stream.runtime.worker import Worker
from efficientad_stream.sources.images import ImagesSource

Step = FrameMeta | Exception | Callable[[], None]


def meta(n: int, **more: object) -> FrameMeta:
    return FrameMeta(n, n * 1000, n, 2, 2, 1, **more)  # type: ignore[arg-type]


class Script:
    """A source that does what its script says, then ends."""

    def __init__(self, steps: Iterable[Step], paced: bool = True) -> None:
        self.steps = list(steps)
        self.paced = paced
        self.opens: list[Exception | None] = []
        self.calls: list[str] = []

    def open(self) -> None:
        self.calls.append("open")
        trouble = self.opens.pop(0) if self.opens else None
        if trouble is not None:
            raise trouble

    def grab_into(self, slot: Writable, timeout_s: float) -> FrameMeta | None:
        assert 0 < timeout_s < 1
        if not self.steps:
            raise SourceEnded
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        if not isinstance(step, FrameMeta):
            step()
            return None
        slot.view(2, 2, 1)[:] = step.frame_id % 256
        return step

    def stats(self) -> Mapping[str, int]:
        return {"frames": 3}

    def close(self) -> None:
        self.calls.append("close")


def run(source: Script, slots: int = 16) -> tuple[Capture, FrameRing, list[float]]:
    """Run capture to its end on this thread; pauses are noted, not waited for."""
    ring, pauses = FrameRing(slots), list[float]()
    capture = Capture(source, ring, lambda _stop, seconds: pauses.append(seconds))
    capture.run(threading.Event())
    return capture, ring, pauses


def seen(ring: FrameRing) -> list[tuple[int, Reason | None]]:
    frames: list[Frame] = ring.take(1000, 0, 0)
    return [(f.meta.frame_id, f.meta.loss) for f in frames]


def test_frames_in_order_then_the_end() -> None:
    capture, ring, _ = run(Script([meta(1), meta(2), meta(3)]))
    frames = ring.take(9, 0, 0)
    assert [f.meta for f in frames] == [meta(1), meta(2), meta(3)]
    assert [int(f.pixels[0, 0]) for f in frames if f.pixels is not None] == [1, 2, 3]
    assert ring.ended
    assert capture.state is CameraState.ENDED
    assert capture.stats() == {
        "captured": 3, "missing": 0, "overruns": 0, "reconnects": 0, "source_frames": 3,
    }  # fmt: skip


def test_every_slot_comes_back() -> None:
    _, ring, _ = run(Script([meta(1), TransientError("x"), meta(2), meta(4)]))
    for frame in ring.take(9, 0, 0):
        ring.release(frame.slot)
    assert ring.stats() == {"slots": 16, "free": 16, "waiting": 0, "lent": 0}


class TestLoss:
    def test_a_gap_in_the_counter_comes_before_the_frame_that_showed_it(self) -> None:
        capture, ring, _ = run(Script([meta(7), meta(10), meta(11)]))
        lost = Reason.LOST_FRAME
        assert seen(ring) == [(7, None), (8, lost), (9, lost), (10, None), (11, None)]
        assert capture.stats()["missing"] == 2

    def test_the_first_frame_shows_no_gap(self) -> None:
        _, ring, _ = run(Script([meta(500)]))
        assert seen(ring) == [(500, None)]

    def test_lost_frames_keep_their_trigger_if_it_counts_along(self) -> None:
        _, ring, _ = run(Script([meta(1, trigger=21), meta(4, trigger=24), meta(7, trigger=25)]))
        assert [f.meta.trigger for f in ring.take(9, 0, 0)] == [21, 22, 23, 24, 0, 0, 25]

    @pytest.mark.parametrize("then", [1, 3, 5, 5 + capture_module.MAX_GAP + 2])
    def test_a_counter_that_jumps_is_no_loss(self, then: int) -> None:
        _, ring, _ = run(Script([meta(5), meta(then), meta(then + 1)]))
        assert seen(ring) == [(5, None), (then, None), (then + 1, None)]

    def test_a_damaged_frame_is_a_marker(self) -> None:
        damaged = FrameMeta(2, 2000, 2, part_id="p", loss=Reason.INCOMPLETE)
        _, ring, _ = run(Script([meta(1), damaged, meta(3)]))
        frames = ring.take(9, 0, 0)
        assert [f.meta for f in frames] == [meta(1), damaged, meta(3)]
        assert frames[1].pixels is None

    def test_a_camera_is_drained_even_if_the_ring_is_full(self) -> None:
        capture, ring, _ = run(Script([meta(n) for n in range(1, 8)]), slots=4)
        over = Reason.OVERRUN
        assert seen(ring) == [
            (1, None), (2, None), (3, None), (4, over), (5, over), (6, over), (7, over),
        ]  # fmt: skip
        assert capture.stats()["overruns"] == 4

    def test_after_an_overrun_the_newest_frame_gets_the_first_free_slot(self) -> None:
        ring = FrameRing(2)

        def consume() -> None:
            (frame, *_) = ring.take(1, 0, 0)
            ring.release(frame.slot)

        source = Script([meta(1), meta(2), consume, meta(3), meta(4)])
        Capture(source, ring).run(threading.Event())
        frames = ring.take(9, 0, 0)
        assert [(f.meta.frame_id, f.meta.loss) for f in frames] == [
            (2, Reason.OVERRUN), (3, None), (4, Reason.OVERRUN),
        ]  # fmt: skip
        assert frames[1].pixels is not None
        assert frames[1].pixels[0, 0] == 3


class TestSupervisor:
    def test_a_failed_source_is_closed_and_opened_again(self) -> None:
        source = Script([meta(1), TransientError("cable"), meta(1), meta(2)])
        capture, ring, pauses = run(source)
        assert source.calls == ["open", "close", "open", "close"]
        assert seen(ring) == [(1, None), (1, None), (2, None)]  # its counter began anew
        assert pauses == [0.25]
        assert capture.stats()["reconnects"] == 1

    def test_pauses_grow_and_are_bounded_and_begin_anew_after_a_frame(self) -> None:
        source = Script([meta(1), TransientError("again"), meta(2)])
        source.opens = [TransientError(f"not yet {n}") for n in range(7)]
        _, _, pauses = run(source)
        assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, LONGEST_PAUSE_S, 0.25]

    def test_one_log_line_per_change(self, capsys: pytest.CaptureFixture[str]) -> None:
        source = Script([meta(1), TransientError("cable pulled")])
        source.opens = [None, TransientError("still away"), TransientError("still away"), None]
        run(source)
        out = capsys.readouterr().out
        lines = [line for line in out.splitlines() if "camera " in line]
        words = ["streaming", "lost", "streaming", "ended"]
        assert [next(w for w in words if f"camera {w}" in line) for line in lines] == words
        assert "cable pulled" in lines[1]

    def test_state_while_the_camera_is_away(self) -> None:
        states: list[CameraState] = []
        source = Script([meta(1), TransientError("away")])
        capture = Capture(source, FrameRing(4), lambda *_: states.append(capture.state))
        states.append(capture.state)
        capture.run(threading.Event())
        assert states == [CameraState.CONNECTING, CameraState.LOST]

    def test_a_mistake_ends_it_and_closes_source_and_ring(self) -> None:
        source, ring = Script([]), FrameRing(4)
        source.opens = [ConfigError("no such camera")]
        with pytest.raises(ConfigError, match="no such camera"):
            Capture(source, ring).run(threading.Event())
        assert source.calls == ["open", "close"]
        assert ring.ended
        assert ring.stats()["free"] == 4

    def test_a_consumer_that_died_is_fatal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ring_module, "MAX_ENTRIES", 2)
        source = Script([meta(n, part_id=f"p{n}") for n in range(1, 9)])
        with pytest.raises(FatalError, match="stands still"):
            run(source, slots=2)

    def test_stop_ends_it_before_the_next_frame(self) -> None:
        stop = threading.Event()
        source, ring = Script([meta(1), stop.set, meta(2)]), FrameRing(4)
        Capture(source, ring).run(stop)
        assert seen(ring) == [(1, None)]
        assert ring.ended

    def test_stop_interrupts_the_pause(self) -> None:
        stop = threading.Event()
        source = Script([])
        source.opens = [TransientError("away")] * 1000
        capture = Capture(source, FrameRing(4))
        thread = threading.Thread(target=capture.run, args=(stop,))
        thread.start()
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


def test_a_source_that_waits_also_waits_with_what_it_could_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Markers need no slot: a folder of unreadable files must not look like a dead consumer."""
    monkeypatch.setattr(ring_module, "MAX_ENTRIES", 4)
    lost = [meta(n, part_id=f"p{n}", loss=Reason.UNREADABLE) for n in range(1, 41)]
    ring = FrameRing(2)
    capture = Capture(Script(lost, paced=False), ring)
    failures: list[BaseException] = []
    worker = Worker("capture", capture.run, lambda _name, error: failures.append(error))
    worker.start()
    found: list[str | None] = []
    while not ring.ended:
        found += [frame.meta.part_id for frame in ring.take(3, 0, 1.0)]
    assert worker.join(10)
    assert not failures
    assert found == [f"p{n}" for n in range(1, 41)]


def test_a_source_that_waits_loses_nothing(tmp_path: Path) -> None:
    """Forty real images through a ring of two slots, taken slowly."""
    for n in range(40):
        cv2.imwrite(str(tmp_path / f"{n:02d}.png"), np.full((4, 4, 3), n, np.uint8))
    ring = FrameRing(2)
    capture = Capture(ImagesSource(config.ImagesSource(path=str(tmp_path))), ring)
    thread = threading.Thread(target=capture.run, args=(threading.Event(),))
    thread.start()
    levels = []
    while not ring.ended:
        for frame in ring.take(3, 0, 1.0):
            assert frame.pixels is not None
            levels.append(int(frame.pixels[0, 0, 0]))
            ring.release(frame.slot)
    thread.join(10)
    assert levels == list(range(40))
    assert capture.stats()["overruns"] == 0
