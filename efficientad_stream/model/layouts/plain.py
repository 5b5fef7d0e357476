"""A plain folder: ``good`` and ``<defect>`` hold images; nothing is marked."""

from __future__ import annotations

from pathlib import Path

from efficientad_stream.core.types import GOOD
from efficientad_stream.model.layouts.labelled import Labelled, images_by_kind


def fits(root: Path) -> bool:
    """True if there is a folder of good images."""
    return (root / GOOD).is_dir()


def read(root: Path) -> list[Labelled]:
    """All images in order of path.

    Raises:
        ArtifactError: without good or without defective images.
    """
    return [Labelled(path, name, kind) for path, name, kind in images_by_kind(root)]
