"""What the networks see of a frame: which part of it, at which size, and what they must ignore."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.placement import Placement, Rect
from efficientad_stream.core.types import MAP_BORDER

SIZE_STEP = 32
SIZE_MIN = 128
SIZE_MAX = 1024
SIDE_MAX = 1 << 16
"""Longest side of a frame that a recipe can be made for."""
EXPOSURES = ("as_is", "level")
"""As the camera has it; or each frame brought to the same mean brightness, so that a lamp that ages
or an exposure that drifts is no anomaly."""
FITS = ("stretch", "letterbox", "crop")
"""How what is looked at is brought to the input size: each side by itself; in proportion, all of it
with bars beside it; or in proportion, the middle of it without any."""


@dataclass(frozen=True)
class Geometry:
    """What the networks see of a frame.

    Attributes:
        height, width: input size of the networks in pixels, multiples of 32 from 128 to 1024.
        channels: 3 for colour; 1 means that frames are grey and are judged as grey.
        exposure: what is done about its brightness, see ``EXPOSURES``.
        fit: how it is brought to the input size, see ``FITS``.
        region: the part of the frame that is looked at, in its pixels; None: all of it.
        frame: height and width that every frame must have; None: any. Needed wherever pixels of the
            frame are named (region, mask), and by bars, which must lie where they were learnt.
        mask_sha256: of the file with the mask; "" if there is none.
        mask: H x W of the frame, true where it is inspected. Known by its hash: not compared.
    """

    height: int
    width: int
    channels: int = 3
    exposure: str = "as_is"
    fit: str = "stretch"
    region: Rect | None = None
    frame: tuple[int, int] | None = None
    mask_sha256: str = ""
    mask: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            size = getattr(self, name)
            if size % SIZE_STEP or not SIZE_MIN <= size <= SIZE_MAX:
                raise ArtifactError(
                    f"input.{name}: {size} is not a multiple of {SIZE_STEP} "
                    f"from {SIZE_MIN} to {SIZE_MAX}"
                )
        if self.channels not in (1, 3):
            raise ArtifactError(f"input.channels: {self.channels} is neither 1 (grey) nor 3")
        for name, known in (("exposure", EXPOSURES), ("fit", FITS)):
            if getattr(self, name) not in known:
                raise ArtifactError(
                    f"input.{name}: {getattr(self, name)!r} is none of {', '.join(known)}"
                )
        if self.mask_sha256 and not re.fullmatch("[0-9a-f]{64}", self.mask_sha256):
            raise ArtifactError("input.mask_sha256: not 64 hexadecimal digits")
        self._check_frame()

    def _check_frame(self) -> None:
        """Whatever names pixels of the frame must agree with its size."""
        if self.frame is None:
            if self.region or self.mask_sha256 or self.fit == "letterbox":
                raise ArtifactError(
                    "input.frame: missing; a region, a mask and letterbox are for one size of frame"
                )
            return
        if self.mask is not None and not self.mask_sha256:
            raise ArtifactError("input.mask_sha256: missing; a mask is known by it")
        height, width = self.frame
        if not (1 <= height <= SIDE_MAX and 1 <= width <= SIDE_MAX):
            raise ArtifactError(f"input.frame: {width} x {height} pixels is no size of a frame")
        if self.region is not None:
            x, y, wide, high = self.region
            if min(x, y) < 0 or min(wide, high) < 1 or x + wide > width or y + high > height:
                raise ArtifactError(
                    f"input.region: {wide} x {high} pixels from ({x}, {y}) do not lie in a frame "
                    f"of {width} x {height}"
                )
        if self.mask is not None and self.mask.shape != self.frame:
            raise ArtifactError(
                f"input.mask_sha256: the mask has {self.mask.shape[1]} x {self.mask.shape[0]} "
                f"pixels, the frame {width} x {height}"
            )

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of the anomaly maps: a position for every 4 pixels, less the border."""
        return self.height // 4 - 2 * MAP_BORDER, self.width // 4 - 2 * MAP_BORDER

    def place(self, height: int, width: int) -> Placement:
        """Where the input lies in a frame of ``height`` x ``width`` pixels."""
        source = self.region or Rect(0, 0, width, height)
        target = Rect(0, 0, self.width, self.height)
        if self.fit == "crop":
            source = inscribed(source, self.width, self.height)
        elif self.fit == "letterbox":
            target = inscribed(target, source.width, source.height)
        return Placement((height, width), source, target)


def inscribed(outer: Rect, width: int, height: int) -> Rect:
    """The largest rectangle of the shape ``width`` : ``height`` in the middle of ``outer``.

    Its sides are rounded to whole pixels, of which there is at least one.
    """
    wide, high = outer.width, outer.height
    if wide * height > width * high:
        wide = max(1, round(high * width / height))
    else:
        high = max(1, round(wide * height / width))
    x, y = outer.x + (outer.width - wide) // 2, outer.y + (outer.height - high) // 2
    return Rect(x, y, wide, high)
