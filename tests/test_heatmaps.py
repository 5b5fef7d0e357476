from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import zmq
from station_kit import until

from efficientad_stream.config import HeatmapConfig
from efficientad_stream.core import wire
from efficientad_stream.core.errors import FatalError
from efficientad_stream.core.messages import Heatmap
from efficientad_stream.core.types import FrameMeta, Inspection, MapArray, Scores, Verdict
from efficientad_stream.sinks.heatmaps import (
    MAX_IMAGE_BYTES,
    HeatmapSink,
    encode_jpeg,
    encode_png,
    grey_map,
    overlay,
    scale_max,
)


def hot(value: float = 2.0, y: int = 10, x: int = 30, size: int = 56) -> MapArray:
    anomaly_map = np.zeros((size, size), np.float32)
    anomaly_map[y, x] = value
    return anomaly_map


def inspection(
    seq: int = 1, verdict: Verdict = Verdict.FAIL, slot: int = 3, **changes: Any
) -> Inspection:
    made = Inspection(
        meta=FrameMeta(frame_id=40 + seq, captured_ns=0, captured_at_us=0, trigger=9),
        verdict=verdict,
        reason=None,
        threshold=0.5,
        recipe=None,
        scores=Scores(2.0, 1.0, 3.0, hot()),
        seq=seq,
        slot=slot,
        pixels=np.full((120, 160, 3), 90, np.uint8),
    )
    return replace(made, **changes)


def decoded(image: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_UNCHANGED)


class Sinks:
    """A sink, a subscriber to it, and the slots that came back."""

    def __init__(self, **config: Any) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.released: Counter[int] = Counter()
        self.failures: list[BaseException] = []
        self.sink = HeatmapSink(
            self.context,
            "tcp://127.0.0.1:*",
            HeatmapConfig(**config),
            station="st1",
            epoch=77,
            release=lambda slot: self.released.update([slot]),
            on_failure=lambda _name, error: self.failures.append(error),
        )
        self.sub = self.context.socket(zmq.SUB)
        self.sub.linger = 0
        self.sub.subscribe(b"es1.hm.st1.")
        self.sub.connect(self.sink.endpoint)

    def receive(self) -> Heatmap:
        assert self.sub.poll(5000), "no heatmap within 5 s"
        topic, header, body, image = self.sub.recv_multipart()
        assert topic == b"es1.hm.st1."
        assert len(topic) + len(header) + len(body) + len(image) <= 64 * 1024
        return wire.decode_heatmap(header, body, image)

    def first(self, what: Inspection) -> Heatmap:
        """Offer ``what`` until the subscription has arrived, and return a heatmap of it."""

        def arrives() -> bool:
            self.sink.offer(what)
            return bool(self.sub.poll(20))

        until(arrives)
        return self.receive()

    def close(self) -> None:
        assert self.sink.stop(5)
        self.context.destroy(linger=0)
        assert not self.failures


@pytest.fixture
def sinks() -> Iterator[Any]:
    made: list[Sinks] = []

    def make(*, start: bool = True, **config: Any) -> Sinks:
        made.append(Sinks(**config))
        if start:
            made[-1].sink.start()
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_an_overlay_is_a_jpeg_of_the_frame_with_the_heat_where_it_is(sinks: Any) -> None:
    line = sinks(when="fail", style="overlay", max_side=128)
    heatmap = line.first(inspection(seq=5))
    header, body, image = heatmap
    assert (header.seq, header.verdict, header.epoch, header.trigger) == (5, Verdict.FAIL, 77, 9)
    assert (body.frame_id, body.format, body.score, body.threshold) == (45, "jpeg", 2.0, 0.5)
    assert (body.scale_min, body.scale_max) == (0.0, 2.0)
    picture = decoded(image).astype(int)
    assert picture.shape == (96, 128, 3) == (body.height, body.width, 3)
    change = np.abs(picture - 90).max(2)
    y, x = np.unravel_index(change.argmax(), change.shape)
    assert (abs(y - (10 + 4.5) * 96 / 64), abs(x - (30 + 4.5) * 128 / 64)) < (3, 3)
    assert change[60:, :].max() < 12


def test_a_map_is_a_png_whose_grey_values_mean_what_the_body_says(sinks: Any) -> None:
    line = sinks(when="all", style="map")
    values = np.linspace(-1, 1.2, 56 * 56, dtype=np.float32).reshape(56, 56)
    what = inspection(verdict=Verdict.PASS, threshold=0.9, scores=Scores(1.2, 1, 1, values))
    header, body, image = line.first(what)
    assert header.verdict is Verdict.PASS
    assert (body.format, body.width, body.height, body.scale_max) == ("png8", 64, 64, 1.8)
    grey = decoded(image)
    assert grey.shape == (64, 64)
    assert grey[0].max() == grey[:, -1].max() == 0
    shown = grey[4:-4, 4:-4] / 255 * body.scale_max
    assert np.abs(shown - np.clip(values, 0, None)).max() <= body.scale_max / 510 + 1e-6


@pytest.mark.parametrize(
    ("when", "verdict", "shown"),
    [
        ("all", Verdict.PASS, True),
        ("fail", Verdict.PASS, False),
        ("fail", Verdict.FAIL, True),
        ("fail", Verdict.INVALID, True),
        ("off", Verdict.FAIL, False),
    ],
)
def test_which_inspections_get_one(sinks: Any, when: str, verdict: Verdict, shown: bool) -> None:
    line = sinks(start=False, when=when)
    assert line.sink.wants(inspection(verdict=verdict)) is shown
    assert line.sink.needs_map is (when != "off")


def test_what_cannot_be_shown_is_not_wanted(sinks: Any) -> None:
    line = sinks(start=False, when="all")
    assert line.sink.wants(inspection())
    assert not line.sink.wants(inspection(scores=None))
    assert not line.sink.wants(inspection(scores=Scores(1, 1, 1)))
    assert not line.sink.wants(inspection(slot=-1, pixels=None))
    assert sinks(start=False, when="all", style="map").sink.wants(inspection(pixels=None))


def test_a_full_queue_drops_counts_and_gives_every_slot_back_once(sinks: Any) -> None:
    line = sinks(start=False, queue=4)
    for slot in range(10):
        line.sink.offer(inspection(slot=slot))
    assert line.sink.stats()["dropped"] == 6
    assert sorted(line.released) == list(range(4, 10))
    line.sink.start()
    until(lambda: line.sink.stats()["sent"] == 4)
    assert line.released == dict.fromkeys(range(10), 1)


def test_what_is_in_the_queue_is_sent_or_let_go_when_it_stops(sinks: Any) -> None:
    line = sinks(start=False, queue=8)
    for slot in range(8):
        line.sink.offer(inspection(slot=slot))
    line.sink.start()
    assert line.sink.stop(5)
    stats = line.sink.stats()
    assert stats["sent"] + stats["dropped"] == 8
    assert line.released == dict.fromkeys(range(8), 1)


def test_a_frame_that_cannot_be_shown_is_counted_and_the_next_one_is(sinks: Any) -> None:
    line = sinks(when="all", max_side=64)
    line.sink.offer(inspection(pixels=np.zeros((0, 0, 3), np.uint8)))
    assert line.first(inspection(seq=8)).header.seq == 8
    assert line.sink.stats()["failed"] == 1
    until(lambda: line.released[3] == line.sink.stats()["sent"] + 1)


@pytest.mark.parametrize(
    ("peak", "threshold", "top"),
    [
        (2.0, 0.5, 2.0),
        (0.3, 0.5, 1.0),
        (2.0, None, 2.0),
        (-1.0, None, 1e-6),
        (1.0, float("nan"), 1.0),
    ],
)
def test_the_scale_is_the_maximum_or_twice_the_threshold(
    peak: float, threshold: float | None, top: float
) -> None:
    anomaly_map = np.full((3, 3), peak, np.float32)
    assert scale_max(anomaly_map, threshold) == top


def test_values_that_are_not_finite_are_shown_hot() -> None:
    anomaly_map = np.array([[np.nan, np.inf], [-np.inf, 0.5]], np.float32)
    assert scale_max(anomaly_map, None) == 0.5
    assert grey_map(anomaly_map, 0.5)[4:6, 4:6].tolist() == [[255, 255], [0, 255]]
    assert scale_max(np.full((2, 2), np.nan, np.float32), 0.25) == 0.5


def test_small_and_grey_frames_keep_their_size() -> None:
    grey = grey_map(hot(), 2.0)
    assert overlay(np.zeros((40, 30), np.uint8), grey, 64).shape == (40, 30, 3)
    assert overlay(np.zeros((2000, 10, 3), np.uint8), grey, 64).shape == (64, 1, 3)


def test_the_worst_pictures_still_fit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    for picture in (encode_jpeg(noise), encode_png(noise[..., 0])):
        assert len(picture.image) <= MAX_IMAGE_BYTES
        assert decoded(picture.image).shape[:2] == (picture.height, picture.width)
        assert picture.width > 150


def test_a_port_in_use_is_said(sinks: Any) -> None:
    line = sinks()
    with pytest.raises(FatalError, match=rf"publish\.heatmaps: {line.sink.endpoint} is in use"):
        HeatmapSink(
            line.context, line.sink.endpoint, HeatmapConfig(), station="st1", epoch=1,
            release=lambda _slot: None, on_failure=lambda _name, _error: None,
        )  # fmt: skip
