"""Images of anything but the product, for the student's penalty. Nothing here needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.geometry import Geometry
from efficientad_stream.core.types import PixelArray
from efficientad_stream.model.data import Cached, list_images, read_image, spread
from efficientad_stream.model.frames import level, resize


class Naturals(Protocol):
    """Images of anything but the product, for the student's penalty."""

    unreadable: set[int]

    def __len__(self) -> int: ...

    @property
    def digest(self) -> str:
        """What a resumed training must find again."""
        ...

    def draw(self, rng: np.random.Generator) -> PixelArray:
        """One at random: h x w x 3 RGB, uint8."""
        ...


class NaturalImages:
    """Natural photographs for the student's penalty (section 3.2).

    Each is resized to twice the input size, made grey with probability 0.3 (always, for a grey
    recipe), and its centre of the input size is taken: at 256 px, 512 and its centre 256.
    """

    GREY_PROBABILITY = 0.3

    def __init__(self, folder: Path, geometry: Geometry, limit: int = 0) -> None:
        paths = list_images(folder)
        self._geometry = geometry
        self._images = Cached([paths[i] for i in spread(len(paths), limit)], self._prepare)
        self.unreadable: set[int] = set()
        """Indices of images that could not be read and are passed over."""

    def __len__(self) -> int:
        return len(self._images)

    @property
    def digest(self) -> str:
        """SHA-256 over the names, in order: what a resumed training must find again."""
        return self._images.digest

    def draw(self, rng: np.random.Generator) -> PixelArray:
        """One at random: h x w x 3 RGB, uint8.

        Raises:
            ArtifactError: more than ten cannot be read.
        """
        while True:
            index = int(rng.integers(len(self)))
            grey = rng.random() < self.GREY_PROBABILITY or self._geometry.channels == 1
            try:
                image = self._images[index]
            except ArtifactError:
                self.unreadable.add(index)
                if len(self.unreadable) > min(10, len(self) - 1):
                    raise
                continue
            if not grey:
                return image
            luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            return np.asarray(cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB), dtype=np.uint8)

    def _prepare(self, path: Path) -> PixelArray:
        h, w = self._geometry.height, self._geometry.width
        double = resize(read_image(path, 3), 2 * h, 2 * w)
        centre = double[h // 2 : h // 2 + h, w // 2 : w // 2 + w]
        if self._geometry.exposure == "level":
            centre = level(centre)
        return np.asarray(cv2.cvtColor(centre, cv2.COLOR_BGR2RGB), dtype=np.uint8)
