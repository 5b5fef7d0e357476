"""The heatmaps socket: small pictures of where a part is unusual. May lose some; counts them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import cv2
import numpy as np
import zmq
from numpy.typing import NDArray

from efficientad_stream import logs
from efficientad_stream.config import HeatmapConfig
from efficientad_stream.core import wire
from efficientad_stream.core.messages import HEATMAP, Header, HeatmapBody
from efficientad_stream.core.placement import STRIDE, Placement, over_frame, whole
from efficientad_stream.core.types import MAP_BORDER, Inspection, MapArray, PixelArray, Verdict
from efficientad_stream.runtime.sockets import bind
from efficientad_stream.runtime.worker import OnFailure, Worker

SEND_HWM = 20
MAX_IMAGE_BYTES = 63 * 1024
"""The image, so that the whole message stays below 64 KB."""
OPACITY = 0.65
"""Of the heat at its hottest; where the map is 0 the frame shows as it is."""
JPEG_QUALITIES = (85, 70, 55, 40)
PNG_EFFORT = 3
PNG_MAX_SIDE = 1024
SHRINK = 0.7
LOOK_S = 0.1
STOP_S = 0.3
"""For what is still in the queue when the sink is stopped."""


class Picture(NamedTuple):
    """An encoded image of ``width`` x ``height`` pixels."""

    image: bytes
    width: int
    height: int


class HeatmapSink:
    """Observer that renders and publishes heatmaps on a thread of its own."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        config: HeatmapConfig,
        *,
        station: str,
        epoch: int,
        release: Callable[[int], None],
        on_failure: OnFailure,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """Bind; ``start`` begins to render.

        Args:
            context: not that of the decisions.
            endpoint: publish.heatmaps.
            config: which inspections get a heatmap, and how it looks.
            station: name of the station.
            epoch: identity of the journal.
            release: ends this observer's hold on a ring slot.
            on_failure: told when the thread dies.
            now_us: UTC microseconds.

        Raises:
            FatalError: the port is in use.
            ConfigError: the address is none of this machine.
        """
        self.needs_map = config.when != "off"
        self.needs_pixels = self.needs_map and config.style == "overlay"
        self._config = config
        self._station, self._epoch = station, epoch
        self._topic = wire.topic(HEATMAP, station)
        self._release, self._now_us = release, now_us
        self._queue: queue.Queue[Inspection] = queue.Queue(config.queue)
        self._counts = {"sent": 0, "dropped": 0, "failed": 0}
        self._unrendered = logs.RateLimited("heatmap cannot be rendered")
        self._socket = context.socket(zmq.PUB)
        self._socket.sndhwm = SEND_HWM
        self._endpoint = bind(self._socket, endpoint, "publish.heatmaps")
        self._worker = Worker("heatmaps", self._run, on_failure)

    @property
    def endpoint(self) -> str:
        """Where the socket is bound."""
        return self._endpoint

    def start(self) -> None:
        """Begin to render."""
        self._worker.start()

    def wants(self, inspection: Inspection) -> bool:
        """True if ``inspection`` is to have a heatmap, and has what it takes."""
        when = self._config.when
        if when == "off" or (when == "fail" and inspection.verdict is Verdict.PASS):
            return False
        if self.needs_pixels and inspection.pixels is None:
            return False
        return inspection.scores is not None and inspection.scores.anomaly_map is not None

    def offer(self, inspection: Inspection) -> None:
        """Render ``inspection``, which is wanted, if there is room; never blocks."""
        try:
            self._queue.put_nowait(inspection)
        except queue.Full:
            self._counts["dropped"] += 1
            self._let_go(inspection)

    def stats(self) -> Mapping[str, int]:
        """Heatmaps sent, dropped for want of room, and failed to render."""
        return dict(self._counts)

    def stop(self, timeout_s: float) -> bool:
        """Send what can be sent in a moment, end the thread, close; False if it hangs."""
        if not self._worker.stop(timeout_s):
            return False
        for inspection in self._left():
            self._counts["dropped"] += 1
            self._let_go(inspection)
        self._socket.close()
        return True

    def _let_go(self, inspection: Inspection) -> None:
        if self.needs_pixels and inspection.slot >= 0:
            self._release(inspection.slot)

    def _left(self) -> Iterator[Inspection]:
        """What is in the queue; for its only consumer."""
        for _ in range(self._queue.qsize()):
            yield self._queue.get_nowait()

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                inspection = self._queue.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            self._show(inspection)
        end = time.monotonic() + STOP_S
        for inspection in self._left():
            self._show(inspection)
            if time.monotonic() > end:
                return

    def _show(self, inspection: Inspection) -> None:
        """Render and send one; its slot is free again before anything waits."""
        try:
            message = self._message(inspection)
        except cv2.error as error:
            self._counts["failed"] += 1
            self._unrendered.hit(seq=inspection.seq, error=str(error).strip())
            return
        finally:
            self._let_go(inspection)
        try:
            self._socket.send_multipart(message, zmq.DONTWAIT)
            self._counts["sent"] += 1
        except zmq.Again:
            self._counts["dropped"] += 1

    def _message(self, inspection: Inspection) -> list[bytes]:
        scores = inspection.scores
        assert scores is not None
        assert scores.anomaly_map is not None
        top = scale_max(scores.anomaly_map, inspection.threshold)
        grey = grey_map(scores.anomaly_map, top)
        place = inspection.placement
        if self.needs_pixels and inspection.pixels is not None:
            picture = encode_jpeg(overlay(inspection.pixels, grey, self._config.max_side, place))
        else:
            picture = encode_png(grey if place is None else spread_out(grey, place))
        body = HeatmapBody(
            station=self._station,
            frame_id=int(inspection.meta.frame_id),
            width=picture.width,
            height=picture.height,
            format="jpeg" if self.needs_pixels else "png8",
            scale_min=0.0,
            scale_max=top,
            score=wire.number(scores.score),
            threshold=None if inspection.threshold is None else wire.number(inspection.threshold),
        )
        header = Header(
            HEATMAP,
            inspection.verdict,
            inspection.seq,
            self._epoch,
            wire.line_count(inspection.meta.trigger),
            published_us=self._now_us(),
        )
        return [self._topic, *wire.encode_heatmap(header, body), picture.image]


def scale_max(anomaly_map: MapArray, threshold: float | None) -> float:
    """The map value that is shown at its hottest: the maximum, or twice the threshold if higher.

    So a good part looks cool, however small its own maximum is.
    """
    finite = anomaly_map[np.isfinite(anomaly_map)]
    candidates = [float(finite.max()) if finite.size else 0.0, 1e-6]
    if threshold is not None and np.isfinite(threshold):
        candidates.append(2.0 * float(threshold))
    return max(candidates)


def grey_map(anomaly_map: MapArray, top: float) -> NDArray[np.uint8]:
    """The map in 8 bits over the whole input: 0 for values up to 0, 255 for ``top``.

    The border that the map lacks is added as 0; what is not finite is shown at its hottest.
    Shape (h + 8) x (w + 8).
    """
    clean = np.nan_to_num(anomaly_map, nan=top, posinf=top, neginf=0.0)
    grey = np.clip(clean * (255.0 / top), 0, 255).round().astype(np.uint8)
    return np.pad(grey, MAP_BORDER)


def spread_out(grey: NDArray[np.uint8], place: Placement) -> NDArray[np.uint8]:
    """``grey`` over the whole frame: as it is if the input is the frame, else as fine as it is.

    A small region of a large frame may become coarser: no side is longer than ``PNG_MAX_SIDE``.
    """
    if place == whole(place.frame, _input_size(grey)):
        return grey
    rows = place.frame[0] * place.target.height / place.source.height / STRIDE
    columns = place.frame[1] * place.target.width / place.source.width / STRIDE
    factor = min(1.0, PNG_MAX_SIDE / max(rows, columns))
    size = max(1, round(rows * factor)), max(1, round(columns * factor))
    return np.asarray(over_frame(grey, place, size).round(), np.uint8)


def _input_size(grey: NDArray[np.uint8]) -> tuple[int, int]:
    """Height and width of the input that a map with its border was made from."""
    return STRIDE * grey.shape[0], STRIDE * grey.shape[1]


def overlay(
    pixels: PixelArray, grey: NDArray[np.uint8], max_side: int, place: Placement | None = None
) -> PixelArray:
    """The frame, no larger than ``max_side``, with the heat on it: h x w x 3, BGR, uint8.

    ``place`` says where the map lies in the frame; None: all over it.
    """
    height, width = pixels.shape[:2]
    factor = min(1.0, max_side / max(height, width, 1))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    if small.ndim == 2:
        small = cv2.cvtColor(small, cv2.COLOR_GRAY2BGR)
    place = place or whole((height, width), _input_size(grey))
    heat = over_frame(grey, place, (size[1], size[0])).round().astype(np.uint8)
    colour = cv2.applyColorMap(heat, cv2.COLORMAP_TURBO)
    alpha = (heat.astype(np.float32) * (OPACITY / 255.0))[..., None]
    blended = small + (colour.astype(np.float32) - small) * alpha
    return np.asarray(blended.round(), np.uint8)


def encode_jpeg(picture: PixelArray) -> Picture:
    """``picture`` as a JPEG below the limit: first of lower quality, then smaller."""
    while True:
        for quality in JPEG_QUALITIES:
            data = _encode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
            if len(data) <= MAX_IMAGE_BYTES:
                return Picture(data, picture.shape[1], picture.shape[0])
        picture = _smaller(picture)


def encode_png(grey: NDArray[np.uint8]) -> Picture:
    """``grey`` as an 8-bit PNG below the limit; smaller if need be."""
    while True:
        data = _encode(".png", grey, [cv2.IMWRITE_PNG_COMPRESSION, PNG_EFFORT])
        if len(data) <= MAX_IMAGE_BYTES:
            return Picture(data, grey.shape[1], grey.shape[0])
        grey = _smaller(grey)


def _encode(kind: str, picture: NDArray[np.uint8], options: list[int]) -> bytes:
    done, data = cv2.imencode(kind, picture, options)
    if not done:
        raise cv2.error(f"{kind} encoder gave up on {picture.shape}")
    return data.tobytes()


def _smaller(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(
        cv2.resize(picture, None, fx=SHRINK, fy=SHRINK, interpolation=cv2.INTER_AREA), np.uint8
    )
