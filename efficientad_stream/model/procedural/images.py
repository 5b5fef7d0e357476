"""Drawn images in the place of photographs, as ``data.Naturals`` wants them."""

from __future__ import annotations

import cv2
import numpy as np

from efficientad_stream.core.recipe import Geometry
from efficientad_stream.core.types import PixelArray
from efficientad_stream.model.frames import level
from efficientad_stream.model.naturals import NaturalImages
from efficientad_stream.model.procedural.scenes import scene

VERSION = 1
"""Raised when what is drawn changes: a training that was interrupted must not go on with others."""
SEED = 20_230_314
POOL = 400
"""Images that are drawn, each when it is first asked for."""
POOL_BYTES = 256 << 20
"""No more of them than fit into this: at 1024 x 1024 px, 85."""
EXCHANGED = 0.2
"""How often red and blue change places."""


class ProceduralImages:
    """Images for the student's penalty that nobody has to download.

    There is a pool of scenes, the same for everybody; each time that one is drawn it is mirrored,
    turned upside down, or has red and blue exchanged at random, and is made grey as often as a
    photograph is.
    """

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        fitting = POOL_BYTES // (3 * geometry.height * geometry.width)
        self._pool: list[PixelArray | None] = [None] * min(POOL, fitting)
        self.unreadable: set[int] = set()
        """Always empty: nothing is read."""

    def __len__(self) -> int:
        return len(self._pool)

    @property
    def digest(self) -> str:
        """Says which images these are: what a resumed training must find again."""
        return f"procedural images {VERSION}, {len(self)} of them"

    def draw(self, rng: np.random.Generator) -> PixelArray:
        """One at random: h x w x 3 RGB, uint8."""
        image = self._image(int(rng.integers(len(self))))
        grey = rng.random() < NaturalImages.GREY_PROBABILITY or self._geometry.channels == 1
        turned = cv2.flip(image, int(rng.integers(-1, 2))) if rng.random() < 0.75 else image
        if grey:
            luma = cv2.cvtColor(turned, cv2.COLOR_RGB2GRAY)
            return np.asarray(cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB), np.uint8)
        if rng.random() < EXCHANGED:
            turned = cv2.cvtColor(turned, cv2.COLOR_RGB2BGR)
        return np.array(turned, np.uint8)

    def _image(self, index: int) -> PixelArray:
        image = self._pool[index]
        if image is None:
            rng = np.random.default_rng((SEED, index))
            image = scene(self._geometry.height, self._geometry.width, rng)
            if self._geometry.exposure == "level":
                image = level(image)
            self._pool[index] = image
        return image
