"""The one preparation of frames: training, evaluation and the daemon all go through ``prepare``.

Frames are resized as bytes, before anything becomes a float: shrinking averages over areas (so that
nothing aliases), enlarging is bilinear.

What is not to be inspected (under the mask, or a bar of the letterbox) is one grey, ``BLANK``, in
every frame. So it is nothing unusual, and nothing that the camera has there can change a score: the
autoencoder sees the whole input at once, so that leaving positions of a map out would not suffice.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from efficientad_stream.core.errors import ArtifactError, FormatError
from efficientad_stream.core.placement import STRIDE
from efficientad_stream.core.recipe import Geometry
from efficientad_stream.core.types import MAP_BORDER, PixelArray

Pixels = NDArray[np.integer[Any] | np.floating[Any]]
BLANK = 114
"""The mean grey of photographs (ImageNet: 0.449 of white), near 0 once the input is normalised."""


def prepare(frame: PixelArray, geometry: Geometry, out: PixelArray | None = None) -> PixelArray:
    """What the networks see of ``frame``.

    Args:
        frame: H x W (grey) or H x W x 3 (BGR), uint8, any size.
        geometry: input size and number of channels of the recipe.
        out: where to write the result: height x width x 3, uint8, contiguous; allocated if None.

    Returns:
        RGB, height x width x 3, uint8; a grey frame is repeated over the three channels.

    Raises:
        FormatError: not uint8, no pixels, another shape; grey for a colour recipe or vice versa;
            another size than the recipe is for.
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
    place, blank = geometry.place(*frame.shape[:2]), blank_of(geometry)
    there = place.target.slices
    small = resize(frame[place.source.slices], place.target.height, place.target.width)
    if geometry.exposure == "level":
        small = level(small, None if blank is None else blank.seen[there])
    code = cv2.COLOR_GRAY2RGB if geometry.channels == 1 else cv2.COLOR_BGR2RGB
    inside = out[there]
    written = cv2.cvtColor(small, code, dst=inside)
    if not np.shares_memory(written, out):
        inside[...] = written
    if blank is not None:
        cv2.copyTo(blank.grey, blank.hidden, out)
    return out


class Blank(NamedTuple):
    """What of an input is not to be inspected; all at its size, and read-only.

    Attributes:
        seen: 255 where a pixel counts, else 0.
        hidden: the opposite.
        grey: h x w x 3, ``BLANK`` all over.
    """

    seen: PixelArray
    hidden: PixelArray
    grey: PixelArray


@lru_cache(maxsize=8)
def blank_of(geometry: Geometry) -> Blank | None:
    """What is hidden from the networks; None if nothing is.

    A pixel of the input is seen if nothing under the mask has a share in it.

    Raises:
        ValueError: the geometry has a mask that was not read.
    """
    if geometry.mask_sha256 and geometry.mask is None:
        raise ValueError("the mask of this geometry was not read")
    if geometry.frame is None or (geometry.mask is None and geometry.fit != "letterbox"):
        return None
    place = geometry.place(*geometry.frame)
    seen = np.zeros((geometry.height, geometry.width), np.uint8)
    inside = seen[place.target.slices]
    inside[...] = 255
    if geometry.mask is not None:
        ignored = (~geometry.mask[place.source.slices]).astype(np.float32)
        inside[_resized(ignored, *inside.shape) > 0] = 0
    grey = np.full((*seen.shape, 3), BLANK, np.uint8)
    for array in (seen, hidden := 255 - seen, grey):
        array.setflags(write=False)
    return Blank(seen, hidden, grey)


@lru_cache(maxsize=8)
def inspected(geometry: Geometry) -> NDArray[np.bool_] | None:
    """The positions of a map that count, ``geometry.map_size``; None: all of them.

    One counts if any of the 4 x 4 pixels that it stands for is seen: what is to be inspected is,
    up to its edge.

    Raises:
        ArtifactError: none counts.
    """
    blank = blank_of(geometry)
    if blank is None:
        return None
    high, wide = geometry.height // STRIDE, geometry.width // STRIDE
    cells = np.asarray(blank.seen.reshape(high, STRIDE, wide, STRIDE).any((1, 3)))
    counts = np.ascontiguousarray(cells[MAP_BORDER:-MAP_BORDER, MAP_BORDER:-MAP_BORDER])
    if not counts.any():
        raise ArtifactError("the mask leaves nothing to inspect of what the networks see")
    counts.setflags(write=False)
    return counts


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
    if geometry.frame is not None and frame.shape[:2] != geometry.frame:
        raise FormatError(
            f"frame has {frame.shape[1]} x {frame.shape[0]} pixels, the recipe is for frames of "
            f"{geometry.frame[1]} x {geometry.frame[0]}"
        )


def resize(frame: PixelArray, height: int, width: int) -> PixelArray:
    """``frame`` (H x W or H x W x 3, uint8) at ``height`` x ``width``.

    An axis that shrinks is averaged over areas, one that grows is interpolated linearly; where one
    shrinks and the other grows, the shrinking comes first. OpenCV's area mode needs this: it only
    averages if neither axis grows.
    """
    return np.asarray(_resized(frame, height, width), np.uint8)


def _resized(array: Pixels, height: int, width: int) -> Pixels:
    less = (min(height, array.shape[0]), min(width, array.shape[1]))
    if less != array.shape[:2]:
        array = np.asarray(cv2.resize(array, less[::-1], interpolation=cv2.INTER_AREA))
    if less != (height, width):
        array = np.asarray(cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR))
    return array


LEVEL = 100.0
"""Mean grey value of a levelled frame: bright, with room above for what shines."""
DARKEST = 8.0
"""A frame with a lower mean is treated as if it had this one; noise is not blown up to an image."""


def level(frame: PixelArray, seen: PixelArray | None = None) -> PixelArray:
    """``frame`` (H x W or H x W x 3, uint8) with all values times one gain, to the mean ``LEVEL``.

    What a change of gain, exposure time or lamp does to a camera that answers linearly is undone,
    but for what was clipped. Values above 255 are clipped. The mean is that of the pixels where
    ``seen`` (H x W, uint8) is not 0, or of all.
    """
    mean = float(np.mean(cv2.mean(frame, seen)[: 1 if frame.ndim == 2 else 3]))
    scaled = cv2.convertScaleAbs(frame, alpha=LEVEL / max(mean, DARKEST))
    return np.asarray(scaled, dtype=np.uint8)  # nothing is copied
