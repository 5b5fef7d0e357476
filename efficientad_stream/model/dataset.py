"""Labelled data sets: which layout a folder has, and where the defects of an image are.

Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from numpy.typing import NDArray

from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.localisation import Region
from efficientad_stream.core.types import PixelArray
from efficientad_stream.model.data import read_image
from efficientad_stream.model.layouts import loco, mvtec, plain, visa
from efficientad_stream.model.layouts.labelled import Labelled

LAYOUTS: dict[str, ModuleType] = {
    "MVTec LOCO": loco,
    "VisA": visa,
    "MVTec AD": mvtec,
    "plain folder": plain,
}
"""In the order in which they are asked: LOCO looks like MVTec AD, with more in it."""


@dataclass(frozen=True)
class Dataset:
    """The test images of one product.

    Attributes:
        root: its folder.
        layout: a name of ``LAYOUTS``.
        items: images in order of name, good ones and defective ones.
    """

    root: Path
    layout: str
    items: list[Labelled]

    @property
    def name(self) -> str:
        """The category: what the folder is called."""
        return self.root.resolve().name


def find_datasets(root: Path) -> list[Dataset]:
    """The data set that ``root`` is, or those of the categories that it holds, by name.

    Raises:
        ArtifactError: neither, or one of them is not what its layout asks for.
    """
    if not visa.holds_categories(root):
        layout = _layout_of(root)
        if layout is not None:
            return [_read(root, layout)]
    found = [(folder, _layout_of(folder)) for folder in _categories(root)]
    known = [_read(folder, layout) for folder, layout in found if layout is not None]
    if not known:
        raise ArtifactError(
            f"{root}: is no data set: neither in the layout of MVTec AD (test/good, test/<defect>, "
            "ground_truth/<defect>), MVTec LOCO or VisA, nor folders good and <defect>, nor a "
            "folder of such"
        )
    return known


def _layout_of(root: Path) -> str | None:
    return next((name for name, layout in LAYOUTS.items() if layout.fits(root)), None)


def _read(root: Path, layout: str) -> Dataset:
    return Dataset(root, layout, LAYOUTS[layout].read(root))


def _categories(root: Path) -> Iterator[Path]:
    """Folders that may be categories, in order of name."""
    if visa.holds_categories(root):
        yield from (root / name for name in visa.categories(root))
    elif root.is_dir():
        try:
            yield from sorted(path for path in root.iterdir() if path.is_dir())
        except OSError as error:
            raise ArtifactError(f"{root}: cannot be read: {error.strerror}") from error


def read_regions(item: Labelled, height: int, width: int) -> list[Region]:
    """The defects of an image.

    Args:
        item: good, or with masks, in which anything but black is defective. Without saturations
            each connected part (8 neighbours) is a defect, else each mask.
        height: of the image in pixels.
        width: of the image in pixels.

    Raises:
        ArtifactError: a mask cannot be read, is not of the image's size, or marks its defect with a
            value that the data set does not know.
    """
    masks = [_read_mask(path, height, width) for path in item.masks]
    if item.saturations is None:
        return [region for mask in masks for region in _connected(mask)]
    pairs = zip(item.masks, masks, strict=True)
    return [_whole(item, path, mask) for path, mask in pairs if mask.any()]


def _read_mask(path: Path, height: int, width: int) -> PixelArray:
    mask = read_image(path, 1)
    if mask.shape != (height, width):
        raise ArtifactError(
            f"{path}: has {mask.shape[1]} x {mask.shape[0]} pixels, its image {width} x {height}"
        )
    return mask


def _connected(mask: PixelArray) -> list[Region]:
    binary = (mask > 0).astype(np.uint8)
    _, marks = cv2.connectedComponents(binary, connectivity=8, ltype=cv2.CV_32S)
    labels = np.asarray(marks, np.int32).reshape(-1)
    inside = np.flatnonzero(labels)
    order = np.argsort(labels[inside], kind="stable")
    sizes = np.bincount(labels[inside])[1:]
    pieces: list[NDArray[np.int64]] = np.split(inside[order], np.cumsum(sizes)[:-1])
    return [Region(piece, piece.size) for piece in pieces if piece.size]


def _whole(item: Labelled, path: Path, mask: PixelArray) -> Region:
    assert item.saturations is not None
    inside = np.flatnonzero(mask)
    value = int(mask.max())
    saturation = item.saturations.get(value)
    if saturation is None:
        raise ArtifactError(
            f"{path}: marks a defect with {value}, which is not in the data set's "
            f"{loco.CONFIG}; copy it again"
        )
    return Region(inside, saturation.of(inside.size))
