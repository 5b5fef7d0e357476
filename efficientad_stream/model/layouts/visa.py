"""VisA in its original layout.

``<category>/Data/Images/Normal|Anomaly``, ``<category>/Data/Masks/Anomaly``,
``<category>/image_anno.csv`` (image, label, mask) names the defects of an image, and
``split_csv/1cls.csv`` (object, split, label, image, mask) says which images are for testing; paths
in both are relative to the folder above the categories. Source: Zou et al., "SPot-the-Difference
Self-Supervised Pre-training for Anomaly Detection and Segmentation", ECCV 2022, and its readme.
"""

from __future__ import annotations

import csv
from pathlib import Path

from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.types import GOOD
from efficientad_stream.model.layouts.labelled import Labelled

SPLIT = Path("split_csv") / "1cls.csv"
COLUMNS = ("object", "split", "label", "image", "mask")
SEVERAL = "several defects"
"""The kind of an image with more than one."""
UNNAMED = "anomaly"


def fits(root: Path) -> bool:
    """True if ``root`` is a category."""
    return (root / "Data" / "Images").is_dir()


def holds_categories(root: Path) -> bool:
    """True if ``root`` is the folder above the categories."""
    return (root / SPLIT).is_file() and not fits(root)


def read(root: Path) -> list[Labelled]:
    """The test images of one category, as the split that lies beside it names them.

    Raises:
        ArtifactError: the split is missing, wrong or names no good or no defective image.
    """
    above, category = root.resolve().parent, root.resolve().name
    rows = [row for row in _test_rows(above) if row["object"] == category]
    defects = _defects(root / "image_anno.csv")
    items = [_labelled(above, category, row, defects) for row in rows]
    if len({item.defective for item in items}) < 2:
        raise ArtifactError(
            f"{above / SPLIT}: names no good or no defective test images of {category!r}"
        )
    return sorted(items, key=lambda item: item.name)


def categories(root: Path) -> list[str]:
    """The categories that have test images, in order.

    Raises:
        ArtifactError: the split is missing or wrong.
    """
    return sorted({row["object"] for row in _test_rows(root)})


def _test_rows(above: Path) -> list[dict[str, str]]:
    rows = _rows(above / SPLIT, COLUMNS)
    return [row for row in rows if row["split"] == "test"]


def _labelled(above: Path, category: str, row: dict[str, str], defects: dict[str, str]) -> Labelled:
    path = above / row["image"]
    if not path.is_file():
        raise ArtifactError(f"{above / SPLIT}: names {row['image']!r}, which is not there")
    inside = Path(row["image"])
    short = [part for part in inside.parts if part not in (category, "Data", "Images")]
    name = "/".join(short) or inside.name
    if row["label"] == "normal":
        return Labelled(path, name, GOOD)
    mask = above / row["mask"]
    masks = (mask,) if row["mask"] and mask.is_file() else ()
    return Labelled(path, name, defects.get(row["image"], UNNAMED), masks)


def _defects(path: Path) -> dict[str, str]:
    """What each image has; nothing without the file."""
    if not path.is_file():
        return {}
    found = {}
    for row in _rows(path, ("image", "label")):
        names = [name.strip() for name in row["label"].split(",") if name.strip()]
        kind = names[0] if len(names) == 1 else SEVERAL
        found[row["image"]] = UNNAMED if not names or kind in (GOOD, "normal") else kind
    return found


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The named columns of a CSV file.

    Raises:
        ArtifactError: it cannot be read, or lacks one of them.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be read: {error.strerror}; it comes with VisA"
        ) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: is not CSV; copy it again from the data set") from error
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise ArtifactError(f"{path}: lacks the column {missing[0]!r}; copy it again")
    return [{name: row[name] or "" for name in columns} for row in rows]
