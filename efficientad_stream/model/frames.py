"""The one preparation of frames: training, evaluation and the daemon all go through ``prepare``.

Frames are resized as bytes, before anything becomes a float: shrinking averages over areas (so that
nothing aliases), enlarging is bilinear.
"""

from __future__ import annotations

import cv2
import numpy as np

from efficientad_stream.core.errors import FormatError
from efficientad_stream.core.recipe import Geometry
from efficientad_stream.core.types import PixelArray


def prepare(frame: PixelArray, geometry: Geometry, out: PixelArray | None = None) -> PixelArray:
    """What the networks see of ``frame``.

    Args:
        frame: H x W (grey) or H x W x 3 (BGR), uint8, any size.
        geometry: input size and number of channels of the recipe.
        out: where to write the result: height x width x 3, uint8, contiguous; allocated if None.

    Returns:
        RGB, height x width x 3, uint8; a grey frame is repeated over the three channels.

    Raises:
        FormatError: not uint8, no pixels, another shape; grey for a colour recipe or vice versa.
        ValueError: ``out`` cannot take the result.
    """
    check_format(frame, geometry)
    if out is None:
        out = np.empty((geometry.height, geometry.width, 3), np.uint8)
    elif (
        out.shape != (geometry.height, geometry.width, 3)
        or out.dtype != np.uint8
        or not out.flags.c_contiguous
    ):
        raise ValueError(f"out: {out.dtype} {out.shape} cannot take the result")
    small = resize(frame, geometry.height, geometry.width)
    if geometry.exposure == "level":
        small = level(small)
    code = cv2.COLOR_GRAY2RGB if geometry.channels == 1 else cv2.COLOR_BGR2RGB
    written = cv2.cvtColor(small, code, dst=out)
    if written is not out and not np.shares_memory(written, out):
        out[...] = written
    return out


def check_format(frame: PixelArray, geometry: Geometry) -> None:
    """Raise FormatError, naming what came and what was wanted, if ``frame`` cannot be scored."""
    wanted = "grey (H x W)" if geometry.channels == 1 else "colour (H x W x 3)"
    if frame.dtype != np.uint8:
        raise FormatError(f"frame is {frame.dtype}, the recipe wants uint8 {wanted}")
    if frame.ndim == 2:
        came = "grey (H x W)"
    elif frame.ndim == 3 and frame.shape[2] == 3:
        came = "colour (H x W x 3)"
    else:
        came = " x ".join(map(str, frame.shape)) or "a single number"
    if came != wanted:
        raise FormatError(f"frame is {came}, the recipe wants {wanted}")
    if not frame.size:
        raise FormatError("frame has no pixels")


def resize(frame: PixelArray, height: int, width: int) -> PixelArray:
    """``frame`` (H x W or H x W x 3, uint8) at ``height`` x ``width``.

    An axis that shrinks is averaged over areas, one that grows is interpolated linearly; where one
    shrinks and the other grows, the shrinking comes first. OpenCV's area mode needs this: it only
    averages if neither axis grows.
    """
    less = (min(height, frame.shape[0]), min(width, frame.shape[1]))
    if less != frame.shape[:2]:
        frame = _as_uint8(cv2.resize(frame, less[::-1], interpolation=cv2.INTER_AREA))
    if less != (height, width):
        frame = _as_uint8(cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR))
    return frame


LEVEL = 100.0
"""Mean grey value of a levelled frame: bright, with room above for what shines."""
DARKEST = 8.0
"""A frame with a lower mean is treated as if it had this one; noise is not blown up to an image."""


def level(frame: PixelArray) -> PixelArray:
    """``frame`` (H x W or H x W x 3, uint8) with all values times one gain, to the mean ``LEVEL``.

    What a change of gain, exposure time or lamp does to a camera that answers linearly is undone,
    but for what was clipped. Values above 255 are clipped.
    """
    mean = float(np.mean(cv2.mean(frame)[: 1 if frame.ndim == 2 else 3]))
    return _as_uint8(cv2.convertScaleAbs(frame, alpha=LEVEL / max(mean, DARKEST)))


def _as_uint8(array: object) -> PixelArray:
    """OpenCV's result as the array of bytes that it is; nothing is copied."""
    return np.asarray(array, dtype=np.uint8)
