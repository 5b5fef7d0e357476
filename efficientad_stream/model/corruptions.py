"""What happens to the frames of a camera in a year: light, focus, position, noise, compression.

Each is applied to the frame as the camera delivers it, before the preparation that the daemon does
too. Lengths are in pixels of the recipe's input, so that they mean the same for every camera. The
outcome depends on nothing but the frame, the recipe's input size and the image's name.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from efficientad_stream.core.recipe import Geometry
from efficientad_stream.core.types import PixelArray

BLUR_PX = 1.0
"""Standard deviation of the blur in pixels of the input."""
SHIFT_PX = 5.0
"""Pixels of the input by which the part lies further right and further down."""
NOISE = 8.0
"""Standard deviation in grey levels of 255, for each pixel and channel of the frame by itself."""
JPEG_QUALITY = 50


@dataclass(frozen=True)
class Exposure:
    """A frame that is about to change.

    Attributes:
        frame: H x W or H x W x 3, uint8.
        down, across: pixels of the frame for one of the recipe's input.
        rng: chance, the same for the same image and corruption.
    """

    frame: PixelArray
    down: float
    across: float
    rng: np.random.Generator


@dataclass(frozen=True)
class Corruption:
    """One way in which frames change."""

    name: str
    apply: Callable[[Exposure], PixelArray]

    def __call__(self, frame: PixelArray, geometry: Geometry, name: str) -> PixelArray:
        """A changed copy of ``frame`` (H x W or H x W x 3, uint8), which is called ``name``."""
        seed = zlib.crc32(f"{self.name}\0{name}".encode("utf-8", "surrogatepass"))
        place = geometry.place(*frame.shape[:2])
        down = place.source.height / place.target.height
        across = place.source.width / place.target.width
        return self.apply(Exposure(frame, down, across, np.random.default_rng(seed)))


def _gain(factor: float) -> Callable[[Exposure], PixelArray]:
    def apply(one: Exposure) -> PixelArray:
        return np.asarray(cv2.convertScaleAbs(one.frame, alpha=factor), np.uint8)

    return apply


def _blur(one: Exposure) -> PixelArray:
    x, y = BLUR_PX * one.across, BLUR_PX * one.down
    edge = cv2.BORDER_REPLICATE
    return np.asarray(cv2.GaussianBlur(one.frame, (0, 0), x, sigmaY=y, borderType=edge), np.uint8)


def _shift(one: Exposure) -> PixelArray:
    """What was beyond the edge is not known: the edge is repeated."""
    height, width = one.frame.shape[:2]
    down = min(round(SHIFT_PX * one.down), height - 1)
    right = min(round(SHIFT_PX * one.across), width - 1)
    kept = one.frame[: height - down, : width - right]
    return np.asarray(cv2.copyMakeBorder(kept, down, 0, right, 0, cv2.BORDER_REPLICATE), np.uint8)


def _noise(one: Exposure) -> PixelArray:
    noise = one.rng.standard_normal(one.frame.shape, dtype=np.float32)
    return np.clip(np.rint(one.frame + NOISE * noise), 0, 255).astype(np.uint8)


def _jpeg(one: Exposure) -> PixelArray:
    _, data = cv2.imencode(".jpg", one.frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    flag = cv2.IMREAD_GRAYSCALE if one.frame.ndim == 2 else cv2.IMREAD_COLOR
    return np.asarray(cv2.imdecode(data, flag), np.uint8)


CORRUPTIONS = (
    Corruption("gain +10 %", _gain(1.1)),
    Corruption("gain -10 %", _gain(0.9)),
    Corruption("gain +20 %", _gain(1.2)),
    Corruption("gain -20 %", _gain(0.8)),
    Corruption("blur 1 px", _blur),
    Corruption("shift 5 px", _shift),
    Corruption("noise", _noise),
    Corruption("JPEG 50", _jpeg),
)
