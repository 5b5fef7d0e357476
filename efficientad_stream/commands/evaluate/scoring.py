"""Test images through ``inspect`` and the processor backend, as the daemon feeds frames."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from efficientad_stream.backends.choose import make_backend
from efficientad_stream.config import BackendKind
from efficientad_stream.core.errors import ConfigError, EfficientADError
from efficientad_stream.core.localisation import PixelCurves
from efficientad_stream.core.placement import over_frame
from efficientad_stream.core.recipe import Geometry
from efficientad_stream.core.types import (
    MAP_BORDER,
    Batch,
    Frame,
    FrameMeta,
    Inspection,
    MapArray,
    PixelArray,
    Policy,
    Reason,
)
from efficientad_stream.model.artifact import LoadedRecipe
from efficientad_stream.model.corruptions import Corruption
from efficientad_stream.model.data import memory_budget, read_image
from efficientad_stream.model.dataset import read_regions
from efficientad_stream.model.layouts.labelled import Labelled
from efficientad_stream.runtime.active import Active, ActiveRef
from efficientad_stream.runtime.pipeline import inspect

SAY_EVERY_S = 10.0
BYTES_PER_PIXEL = 8
"""What the curves keep of a map, and take again when they are measured."""

OnMap = Callable[["Scored", MapArray], None]
"""Told of each clean image and its map at the networks' resolution."""


@dataclass(frozen=True)
class Scored:
    """One test image and what was said of it; pixels and map are let go."""

    item: Labelled
    inspection: Inspection

    @property
    def score(self) -> float:
        """NaN if it could not be scored."""
        scores = self.inspection.scores
        return scores.score if scores is not None else math.nan


@dataclass
class Scoring:
    """Every test image as it is, and under every corruption.

    Attributes:
        clean: as it is.
        corrupted: by the name of the corruption, in the same order.
        curves: maps of good images, and of defective ones whose defect is marked, at the size of
            their image, each under its kind.
        seconds: all that took.
    """

    clean: list[Scored] = field(default_factory=list)
    corrupted: dict[str, list[Scored]] = field(default_factory=dict)
    curves: PixelCurves = field(default_factory=PixelCurves)
    seconds: float = 0.0


def score_all(
    loaded: LoadedRecipe,
    items: Sequence[Labelled],
    policy: Policy,
    threads: int = 0,
    corruptions: Sequence[Corruption] = (),
    *,
    backend_kind: BackendKind = "auto",
    on_map: OnMap = lambda _scored, _map: None,
) -> Scoring:
    """Score ``items``; each image is read once, and only as it is do its maps count.

    Raises:
        ArtifactError: an image or a mask cannot be read.
        ConfigError: the maps are more than memory has room for.
    """
    result = Scoring(corrupted={corruption.name: [] for corruption in corruptions})
    into = [result.clean, *result.corrupted.values()]
    room = memory_budget()
    begun = said = time.monotonic()
    backend = make_backend(loaded, backend_kind, threads, maps=True)
    try:
        geometry = loaded.recipe.geometry
        active = ActiveRef(Active(loaded.recipe.id, policy, backend, geometry))
        frames = _frames(items, geometry, corruptions)
        for inspection in inspect(frames, active, 1, time.monotonic_ns, _say_why):
            index, variant = divmod(inspection.meta.frame_id - 1, len(into))
            scored = _take(items[index], inspection)
            into[variant].append(scored)
            if variant == 0:
                _look_at_map(result.curves, scored, inspection, on_map)
                room -= inspection.meta.height * inspection.meta.width * BYTES_PER_PIXEL
                if room < 0:
                    raise ConfigError(
                        f"--dataset: the maps of the first {index + 1} of {len(items)} images fill "
                        f"the memory; give --limit {index}"
                    )
            if time.monotonic() - said >= SAY_EVERY_S:
                said = time.monotonic()
                print(f"{index + 1}/{len(items)}", file=sys.stderr)
    finally:
        backend.close()
    result.seconds = time.monotonic() - begun
    return result


def _take(item: Labelled, inspection: Inspection) -> Scored:
    """What is kept of an inspection: neither pixels nor map, there may be thousands."""
    if inspection.reason is Reason.NON_FINITE:
        _say_why(inspection.meta, "its score is not a number")
    scores = inspection.scores
    light = replace(scores, anomaly_map=None) if scores is not None else None
    return Scored(item, replace(inspection, pixels=None, scores=light))


def _say_why(meta: FrameMeta, error: EfficientADError | str) -> None:
    """One line for an image that could not be scored; the report only counts it."""
    print(f"{meta.part_id}: {error}", file=sys.stderr)


def _frames(
    items: Sequence[Labelled], geometry: Geometry, corruptions: Sequence[Corruption]
) -> Iterator[Batch]:
    """Batches of one frame, an image and then its corruptions; each made when it is its turn."""
    number = 0
    for item in items:
        pixels = read_image(item.path, geometry.channels)
        for corruption in (None, *corruptions):
            number += 1
            changed = pixels if corruption is None else corruption(pixels, geometry, item.name)
            yield (_frame(item, changed, number),)


def _frame(item: Labelled, pixels: PixelArray, number: int) -> Frame:
    meta = FrameMeta(
        frame_id=number,
        captured_ns=time.monotonic_ns(),
        captured_at_us=time.time_ns() // 1000,
        height=pixels.shape[0],
        width=pixels.shape[1],
        channels=1 if pixels.ndim == 2 else 3,
        part_id=item.name,
        truth=item.kind,
    )
    return Frame(meta, pixels)


def _look_at_map(
    curves: PixelCurves, scored: Scored, inspection: Inspection, on_map: OnMap
) -> None:
    """The map over its frame, its border 0 as in the paper; outside of a region its minimum."""
    scores, item, place = inspection.scores, scored.item, inspection.placement
    if scores is None or scores.anomaly_map is None or place is None:
        return
    if not math.isfinite(scores.score):
        return
    on_map(scored, scores.anomaly_map)
    if item.defective and not item.masks:
        return
    padded = np.pad(scores.anomaly_map, MAP_BORDER)
    full = over_frame(padded, place, place.frame, outside=float(padded.min()))
    curves.add(full, read_regions(item, *place.frame), item.kind)
