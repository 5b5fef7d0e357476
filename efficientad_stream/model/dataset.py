"""A labelled data set in the layout of MVTec AD. Nothing here needs torch.

``test/good/*`` and ``test/<defect>/*`` are images, ``ground_truth/<defect>/<stem>_mask.png`` shows
where the defect of an image is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.types import GOOD
from efficientad_stream.model.data import list_images, read_image


@dataclass(frozen=True)
class Labelled:
    """One test image.

    Attributes:
        path: the image.
        name: its path relative to ``test``, for reports.
        kind: "good", or the defect.
        mask: where the defect is marked, if it is marked anywhere.
    """

    path: Path
    name: str
    kind: str
    mask: Path | None

    @property
    def defective(self) -> bool:
        """Anything but good."""
        return self.kind != GOOD


def read_dataset(root: Path) -> list[Labelled]:
    """All test images in order of path.

    Raises:
        ArtifactError: not this layout, or without good or without defective images.
    """
    test = root / "test"
    if not test.is_dir():
        raise ArtifactError(
            f"{root}: is no data set in the layout of MVTec AD; there must be test/good, "
            "test/<defect> and ground_truth/<defect>"
        )
    items = []
    for path in list_images(test):
        inside = path.relative_to(test)
        if len(inside.parts) == 2:
            kind = inside.parts[0]
            items.append(Labelled(path, inside.as_posix(), kind, _mask_of(root, kind, path)))
    kinds = {item.kind for item in items}
    if GOOD not in kinds or len(kinds) < 2:
        raise ArtifactError(
            f"{test}: needs images in good and in at least one folder named after a defect"
        )
    return items


def _mask_of(root: Path, kind: str, image: Path) -> Path | None:
    mask = root / "ground_truth" / kind / f"{image.stem}_mask.png"
    return mask if mask.is_file() else None


def read_labels(item: Labelled, height: int, width: int) -> NDArray[np.int32]:
    """Connected defects of an image (8 neighbours): 0 where good, 1, 2, ... inside of each.

    Args:
        item: good, or with a mask, in which anything but black is defective.
        height: of the image in pixels.
        width: of the image in pixels.

    Raises:
        ArtifactError: the mask cannot be read, or is not of the image's size.
    """
    if item.mask is None:
        return np.zeros((height, width), np.int32)
    mask = read_image(item.mask, 1)
    if mask.shape != (height, width):
        raise ArtifactError(
            f"{item.mask}: has {mask.shape[1]} x {mask.shape[0]} pixels, its image "
            f"{width} x {height}"
        )
    binary = (mask > 0).astype(np.uint8)
    _, labels = cv2.connectedComponents(binary, connectivity=8, ltype=cv2.CV_32S)
    return np.asarray(labels, dtype=np.int32)
