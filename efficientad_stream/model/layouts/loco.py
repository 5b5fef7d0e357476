"""MVTec LOCO AD: logical and structural anomalies, one mask for each, saturation thresholds.

``test/good``, ``test/logical_anomalies``, ``test/structural_anomalies``,
``ground_truth/<kind>/<stem>/000.png``, ``001.png``, ... and ``defects_config.json``. The value of
the pixels of a mask says which defect of the configuration it is. Source: Bergmann et al., "Beyond
Dents and Scratches", IJCV 2022, and the data set's own readme.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.model.layouts.labelled import Labelled, Saturation, images_by_kind

CONFIG = "defects_config.json"
KINDS = ("logical_anomalies", "structural_anomalies")


def fits(root: Path) -> bool:
    """True if there are anomalies of either kind, or saturation thresholds."""
    return (root / CONFIG).is_file() or any((root / "test" / kind).is_dir() for kind in KINDS)


def read(root: Path) -> list[Labelled]:
    """All test images in order of path.

    Raises:
        ArtifactError: without good or without defective images, or a bad ``defects_config.json``.
    """
    saturations = _saturations(root / CONFIG)
    return [
        Labelled(path, name, kind, _masks(root / "ground_truth" / kind / path.stem), saturations)
        for path, name, kind in images_by_kind(root / "test")
    ]


def _masks(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(folder.glob("*.png"))) if folder.is_dir() else ()


def _saturations(path: Path) -> dict[int, Saturation]:
    try:
        entries = json.loads(path.read_bytes())
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be read: {error.strerror}; it comes with MVTec LOCO"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: is not JSON; copy it again from the data set") from error
    if not isinstance(entries, list) or not entries:
        raise ArtifactError(f"{path}: is not a list of defects; copy it again from the data set")
    return dict(_saturation(path, number, entry) for number, entry in enumerate(entries))


def _saturation(path: Path, number: int, entry: Any) -> tuple[int, Saturation]:
    """One defect of the configuration: the value of its pixels, and how it saturates."""
    entry = entry if isinstance(entry, dict) else {}
    value, amount = entry.get("pixel_value"), entry.get("saturation_threshold")
    relative = entry.get("relative_saturation")
    if (
        type(value) is not int
        or not 1 <= value <= 255
        or type(amount) not in (int, float)
        or not 0 < amount < (math.inf if relative is False else 1.0 + 1e-9)
        or type(relative) is not bool
    ):
        raise ArtifactError(
            f"{path}: defect {number} needs pixel_value (1 to 255), saturation_threshold (above 0; "
            "at most 1 if relative) and relative_saturation (true or false)"
        )
    return value, Saturation(float(amount), relative)
