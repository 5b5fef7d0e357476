"""How well maps show where a defect is: pixel AU-ROC, AU-PRO and AU-sPRO."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from efficientad_stream.core.areas import Floats, area, rates

WIDE, NARROW = 0.3, 0.05
"""False positive rates up to which AU-PRO and AU-sPRO integrate: that of most papers on MVTec AD,
and the one that MVTec LOCO reports and that comes closer to what a line can use."""


@dataclass(frozen=True)
class Region:
    """One defect of an image.

    Attributes:
        inside: positions of its pixels in the flattened image, at least one, none twice.
        saturation: so many pixels found are enough, from 1 to the size of the region; for a defect
            of which all should be found, its size.
    """

    inside: NDArray[np.int64]
    saturation: int


@dataclass(frozen=True)
class PixelAreas:
    """Areas from 0 to 1; each overlap up to the false positive rate in its name.

    ``pro_*`` ask for all of each region, ``spro_*`` for its saturation; they agree where every
    region saturates at its size.
    """

    auroc: float
    pro_30: float
    pro_5: float
    spro_30: float
    spro_5: float
    regions: int


@dataclass
class _Pixels:
    """Everything that was added of one kind of part."""

    ascending: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    """Good pixels that are sorted already."""
    good: list[NDArray[np.float32]] = field(default_factory=list)
    """Those that are not."""
    defective: list[NDArray[np.float32]] = field(default_factory=list)
    regions: list[tuple[NDArray[np.float32], int]] = field(default_factory=list)
    """Values in descending order, and the saturation."""

    def sorted_good(self) -> NDArray[np.float32]:
        """All good pixels in one ascending array, which takes the place of the pieces."""
        if self.good:
            self.ascending = np.concatenate([self.ascending, *self.good])
            self.good.clear()
            self.ascending.sort()
        return self.ascending


class PixelCurves:
    """Pixel AU-ROC, AU-PRO and AU-sPRO over the maps of a data set, or of some kinds of its parts.

    Keeps every pixel as a float32: 4 bytes for a good one, 8 for a defective one.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, _Pixels] = {}

    def add(self, anomaly_map: ArrayLike, regions: Sequence[Region], kind: str = "") -> None:
        """Take in one image.

        Args:
            anomaly_map: H x W, finite.
            regions: its defects, which may overlap; none if it is good.
            kind: what to ask for it by.

        Raises:
            ValueError: a map that is not finite, or a region that is empty or does not fit it.
        """
        values = np.array(anomaly_map, dtype=np.float32).reshape(-1)
        if not np.isfinite(values).all():
            raise ValueError("a map is not finite")
        inside = np.zeros(values.size, dtype=bool)
        for region in regions:
            _check(region, values.size)
            inside[region.inside] = True
        pixels = self._kinds.setdefault(kind, _Pixels())
        pixels.good.append(values[~inside])
        pixels.defective.append(values[inside])
        for region in regions:
            found = np.sort(values[region.inside])[::-1]
            pixels.regions.append((found, region.saturation))

    @property
    def regions(self) -> int:
        """Defects added so far."""
        return sum(len(pixels.regions) for pixels in self._kinds.values())

    def areas(self, kinds: Collection[str] | None = None) -> PixelAreas | None:
        """The areas over the images of ``kinds``, or over all.

        The overlap at a threshold is the mean, over regions, of the share of each that is found;
        saturated, it is min(pixels found / saturation, 1). The false positive rate is over all good
        pixels of these images, those of images with a defect included. Each area is divided by its
        limit. None if there is no region, or no good pixel.

        Sources: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021 (AU-PRO), and
        "Beyond Dents and Scratches", IJCV 2022 (AU-sPRO).
        """
        some = [p for kind, p in self._kinds.items() if kinds is None or kind in kinds]
        negatives = [pixels.sorted_good() for pixels in some]
        regions = [region for pixels in some for region in pixels.regions]
        if not regions or not any(array.size for array in negatives):
            return None
        defective = np.concatenate([array for pixels in some for array in pixels.defective])
        even = np.full(defective.size, 1.0 / defective.size)
        roc = area(*rates(negatives, np.sort(defective)), even, 1.0)
        return PixelAreas(roc, *_overlaps(negatives, regions), len(regions))


def _check(region: Region, pixels: int) -> None:
    where = region.inside
    if not where.size or where.min() < 0 or where.max() >= pixels:
        raise ValueError(f"a region is empty, or not inside of the {pixels} pixels of its map")
    if not 1 <= region.saturation <= where.size:
        raise ValueError(f"a region of {where.size} pixels cannot saturate at {region.saturation}")


def _overlaps(
    negatives: Sequence[NDArray[np.float32]], regions: Sequence[tuple[NDArray[np.float32], int]]
) -> tuple[float, float, float, float]:
    """AU-PRO to 0.3 and 0.05, AU-sPRO to 0.3 and 0.05.

    min(found / saturation, 1) is a sum over the hottest ``saturation`` pixels of the region alone.
    """
    above, upto = rates(negatives, np.concatenate([values for values, _ in regions]))
    plain = np.concatenate([_shares(v.size, v.size) for v, _ in regions]) / len(regions)
    saturated = np.concatenate([_shares(v.size, most) for v, most in regions]) / len(regions)
    wide, narrow, saturated_wide, saturated_narrow = (
        area(above, upto, weights, limit)
        for weights in (plain, saturated)
        for limit in (WIDE, NARROW)
    )
    return wide, narrow, saturated_wide, saturated_narrow


def _shares(size: int, saturation: int) -> Floats:
    shares = np.zeros(size)
    shares[:saturation] = 1.0 / saturation
    return shares
