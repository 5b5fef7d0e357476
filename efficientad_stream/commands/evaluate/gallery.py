"""The worst escapes and the worst false rejects as pictures: frame, heat, mask, score, name."""

from __future__ import annotations

import base64
import heapq
from dataclasses import dataclass, field

import cv2
import numpy as np

from efficientad_stream.commands.evaluate.scoring import Scored
from efficientad_stream.core.types import MapArray, PixelArray
from efficientad_stream.model.data import read_image
from efficientad_stream.sinks.heatmaps import grey_map, overlay, scale_max

MOST = 12
"""Pictures of each sort."""
SIDE = 320
"""Longest side of a picture in pixels."""
JPEG_QUALITY = 82
OUTLINE = (255, 255, 255)

Ranked = tuple[float, int, Scored, MapArray]


@dataclass(frozen=True)
class Picture:
    """One picture of the page."""

    data_uri: str
    scored: Scored


@dataclass
class Gallery:
    """Remembers only the worst of what it is offered, with their maps at network resolution."""

    threshold: float
    channels: int
    _escapes: list[Ranked] = field(default_factory=list)
    _false_rejects: list[Ranked] = field(default_factory=list)
    _offered: int = 0

    def offer(self, scored: Scored, anomaly_map: MapArray) -> None:
        """Take note of ``scored``, whose score is finite, if it was judged wrongly."""
        rejected = scored.score >= self.threshold
        if rejected != scored.item.defective:
            self._offered += 1
            kept = self._false_rejects if rejected else self._escapes
            rank = scored.score if rejected else -scored.score
            heapq.heappush(kept, (rank, -self._offered, scored, anomaly_map))
            if len(kept) > MOST:
                heapq.heappop(kept)

    def escapes(self) -> list[Picture]:
        """Lowest score first."""
        return self._drawn(self._escapes)

    def false_rejects(self) -> list[Picture]:
        """Highest score first."""
        return self._drawn(self._false_rejects)

    def _drawn(self, kept: list[Ranked]) -> list[Picture]:
        ordered = sorted(kept, key=lambda ranked: ranked[:2], reverse=True)
        return [self._draw(scored, anomaly_map) for _, _, scored, anomaly_map in ordered]

    def _draw(self, scored: Scored, anomaly_map: MapArray) -> Picture:
        frame = read_image(scored.item.path, self.channels)
        # hottest at its own maximum: an escape is cold, and where it is least so is the question
        grey = grey_map(anomaly_map, scale_max(anomaly_map, None))
        shown = overlay(frame, grey, SIDE, scored.inspection.placement)
        for path in scored.item.masks:
            _outline(shown, read_image(path, 1))
        _, data = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        text = base64.b64encode(data.tobytes()).decode("ascii")
        return Picture(f"data:image/jpeg;base64,{text}", scored)


def _outline(shown: PixelArray, mask: PixelArray) -> None:
    """Draw the border of ``mask`` into ``shown``, white on black, so that it shows everywhere."""
    height, width = shown.shape[:2]
    # any defective pixel of the area counts, or a thin scratch would vanish
    binary = (mask > 0).astype(np.float32)
    small = cv2.resize(binary, (width, height), interpolation=cv2.INTER_AREA)
    inside = (np.asarray(small) > 0).astype(np.uint8)
    contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(shown, contours, -1, (0, 0, 0), 3)
    cv2.drawContours(shown, contours, -1, OUTLINE, 1)
