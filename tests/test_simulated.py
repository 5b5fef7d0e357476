"""Source ``simulated``: schedule, metadata and end, on a clock that the test moves."""

from __future__ import annotations

import numpy as np
import pytest

from efficientad_stream.config import SimulatedSource as Settings
from efficientad_stream.core.types import FrameMeta, PixelArray
from efficientad_stream.runtime.protocols import SourceEnded
from efficientad_stream.sources.pacing import Clocks
from efficientad_stream.sources.simulated import SimulatedSource


class Memory:
    """A slot on its own; counts how often its memory was made."""

    def __init__(self) -> None:
        self.pixels: PixelArray | None = None
        self.made = 0

    def view(self, height: int, width: int, channels: int) -> PixelArray:
        shape = (height, width) if channels == 1 else (height, width, channels)
        if self.pixels is None or self.pixels.shape != shape:
            self.pixels = np.zeros(shape, np.uint8)
            self.made += 1
        return self.pixels


class Time:
    """A clock that only sleeping, or the test, moves."""

    def __init__(self) -> None:
        self.now_ns = 5_000_000_000
        self.slept: list[float] = []

    def clock(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_ns += round(seconds * 1e9)


def opened(time: Time, **settings: object) -> SimulatedSource:
    chosen = Settings(**{"width": 96, "height": 64, "defect_rate": 0.5, **settings})  # type: ignore[arg-type]
    source = SimulatedSource(chosen, Clocks(time.clock, time.sleep, lambda: 1_700_000_000_000_000))
    source.open()
    return source


def grab(source: SimulatedSource, slot: Memory) -> FrameMeta:
    meta = source.grab_into(slot, 10.0)
    assert meta is not None
    return meta


def test_metadata_tells_part_truth_and_shape() -> None:
    source, slot = opened(Time()), Memory()
    metas = [grab(source, slot) for _ in range(20)]
    assert [m.frame_id for m in metas] == list(range(1, 21))
    assert metas[12].part_id == "sim-000012"
    assert {(m.height, m.width, m.channels) for m in metas} == {(64, 96, 3)}
    assert metas[0].captured_at_us == 1_700_000_000_000_000
    assert "good" in {m.truth for m in metas}
    assert len({m.truth for m in metas}) > 2
    assert source.stats() == {"frames": 20, "defective": sum(m.truth != "good" for m in metas)}


def test_pixels_are_written_in_place_and_differ_from_part_to_part() -> None:
    source, slot = opened(Time(), grey=True), Memory()
    grab(source, slot)
    assert slot.pixels is not None
    first, memory = slot.pixels.copy(), slot.pixels
    grab(source, slot)
    assert slot.pixels is memory
    assert slot.made == 1
    assert first.shape == (64, 96)
    assert not np.array_equal(first, slot.pixels)


def test_parts_keep_an_absolute_schedule() -> None:
    time = Time()
    source, slot = opened(time, fps=50.0), Memory()
    start = time.now_ns
    assert source.paced
    due = []
    for _ in range(10):
        due.append(grab(source, slot).captured_ns - start)
        time.now_ns += 7_000_000
    assert due == [k * 20_000_000 for k in range(10)]


def test_a_late_consumer_gets_what_is_due_at_once_and_the_schedule_stays() -> None:
    time = Time()
    source, slot = opened(time, fps=100.0), Memory()
    grab(source, slot)
    time.now_ns += 35_000_000
    waited = len(time.slept)
    for _ in range(3):
        grab(source, slot)
    assert len(time.slept) == waited
    assert grab(source, slot).captured_ns == 5_000_000_000 + 40_000_000


def test_a_part_that_is_not_due_in_time_comes_later() -> None:
    time = Time()
    source, slot = opened(time, fps=2.0), Memory()
    grab(source, slot)
    assert source.grab_into(slot, 0.2) is None
    assert time.slept[-1] == pytest.approx(0.2)
    assert grab(source, slot).frame_id == 2
    assert time.now_ns == 5_500_000_000


def test_without_a_rate_it_waits_for_its_consumer() -> None:
    time = Time()
    source, slot = opened(time), Memory()
    assert not source.paced
    for _ in range(5):
        grab(source, slot)
    assert time.slept == []


def test_it_ends_after_the_last_part() -> None:
    source, slot = opened(Time(), parts=3), Memory()
    for _ in range(3):
        grab(source, slot)
    for _ in range(2):
        with pytest.raises(SourceEnded):
            source.grab_into(slot, 1.0)


def test_reopened_it_goes_on_with_the_next_part() -> None:
    time = Time()
    source, slot = opened(time, fps=10.0), Memory()
    for _ in range(3):
        grab(source, slot)
    source.close()
    source.close()
    with pytest.raises(RuntimeError, match="not open"):
        source.grab_into(slot, 0.0)
    time.now_ns += 60_000_000_000
    source.open()
    meta = grab(source, slot)
    assert meta.part_id == "sim-000003"
    assert meta.captured_ns == 65_200_000_000
    assert grab(source, slot).captured_ns == 65_300_000_000
