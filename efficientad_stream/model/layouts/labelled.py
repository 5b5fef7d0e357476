"""What every layout is read into: test images that know what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.types import GOOD
from efficientad_stream.model.data import list_images


@dataclass(frozen=True)
class Saturation:
    """How much of a defect must be found (MVTec LOCO).

    Attributes:
        amount: above 0: pixels, or, if relative, a share of the defect's own (at most 1).
        relative: which of the two.
    """

    amount: float
    relative: bool

    def of(self, pixels: int) -> int:
        """Pixels that are enough of a defect of so many: from 1 to all of them."""
        enough = int(self.amount * pixels) if self.relative else int(self.amount)
        return max(1, min(enough, pixels))


@dataclass(frozen=True)
class Labelled:
    """One test image.

    Attributes:
        path: the image.
        name: its path relative to the folder of test images, for reports.
        kind: "good", or the defect.
        masks: where the defect is marked, if it is marked anywhere.
        saturations: by the value that a mask marks its defect with. If given, each mask is one
            defect; if not, each connected part of a mask is one, and all of it is to be found.
    """

    path: Path
    name: str
    kind: str
    masks: tuple[Path, ...] = ()
    saturations: Mapping[int, Saturation] | None = None

    @property
    def defective(self) -> bool:
        """Anything but good."""
        return self.kind != GOOD


def images_by_kind(folder: Path) -> list[tuple[Path, str, str]]:
    """Each image of ``folder``/<kind>/ in order of path: the image, its name, its kind.

    Raises:
        ArtifactError: no image, or none good, or none defective.
    """
    found = []
    for path in list_images(folder):
        inside = path.relative_to(folder)
        if len(inside.parts) == 2:
            found.append((path, inside.as_posix(), inside.parts[0]))
    kinds = {kind for _, _, kind in found}
    if GOOD not in kinds or len(kinds) < 2:
        raise ArtifactError(
            f"{folder}: needs images in good and in at least one folder named after a defect"
        )
    return found
