"""MVTec AD: ``test/good``, ``test/<defect>`` and ``ground_truth/<defect>/<stem>_mask.png``.

A mask may also have the very name of its image, as tools that convert other sets write it.
"""

from __future__ import annotations

from pathlib import Path

from efficientad_stream.model.layouts.labelled import Labelled, images_by_kind


def fits(root: Path) -> bool:
    """True if there is a folder of test images."""
    return (root / "test").is_dir()


def read(root: Path) -> list[Labelled]:
    """All test images in order of path.

    Raises:
        ArtifactError: without good or without defective images.
    """
    return [
        Labelled(path, name, kind, _masks(root / "ground_truth" / kind, path.stem))
        for path, name, kind in images_by_kind(root / "test")
    ]


def _masks(folder: Path, stem: str) -> tuple[Path, ...]:
    names = (f"{stem}_mask.png", f"{stem}.png")
    return next(((folder / name,) for name in names if (folder / name).is_file()), ())
