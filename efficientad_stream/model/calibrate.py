"""What is learnt from held-back good parts: the maps' quantiles, and a threshold.

Source: arXiv 2303.14535, section 3.4. Always on the networks as they inspect: weights rounded to
half precision, folded, computed in single precision, unpadded, on the CPU.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from efficientad_stream.core.calibration import GoodTail, QuantileCollector, threshold_from_good
from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.recipe import Quantiles
from efficientad_stream.core.types import PixelArray
from efficientad_stream.model.folded import FoldedEfficientAD
from efficientad_stream.model.networks import (
    MAP_GAIN,
    EfficientAD,
    Maps,
    normalise_maps,
)

A, B = 0.9, 0.995
"""The quantiles of section 3.4."""
AS_THEY_ARE = Quantiles(0.0, MAP_GAIN, 0.0, MAP_GAIN)
"""Quantiles whose normalisation changes nothing."""
HELD_BACK = 0.1
FEWEST_HELD_BACK = 3
STRETCHES = 5
"""Of a video, this many stretches are held back (fewer if they would be under two frames)."""


@dataclass(frozen=True)
class Calibration:
    """Quantiles, threshold, and the scores of the held-back parts that it was chosen on."""

    quantiles: Quantiles
    tail: GoodTail
    scores: tuple[float, ...]
    exact: bool
    """False if there were so many pixels that the quantiles come from a histogram."""


def scoring_seconds(net: EfficientAD, image: PixelArray) -> float:
    """What ``calibrate`` will take for each image (h x w x 3 RGB, uint8), measured on one."""
    plain = copy.deepcopy(net).cpu().eval()
    rgb = torch.from_numpy(image).permute(2, 0, 1)[None].float().div_(255)
    begun = time.monotonic()
    with torch.no_grad():
        plain.raw_maps(rgb)
    return time.monotonic() - begun


def split(count: int, seed: int, in_order: bool) -> tuple[list[int], list[int]]:
    """Indices to train on and to hold back: a tenth, at least three.

    Args:
        count: good images.
        seed: of the random choice.
        in_order: of a video: hold back stretches spread over it. Single frames would be nearly the
            same as their neighbours that are trained on, and one stretch says nothing of how much
            the line changes in the rest of the video.
    """
    held = max(FEWEST_HELD_BACK, round(HELD_BACK * count))
    if in_order:
        back = _stretches(count, held)
        return sorted(set(range(count)) - set(back)), back
    order = np.random.default_rng((seed, 1 << 33)).permutation(count).tolist()
    return sorted(order[:-held]), sorted(order[-held:])


def _stretches(count: int, held: int) -> list[int]:
    """``held`` of ``count`` indices, in stretches that each end an equal share of the whole."""
    stretches = max(1, min(STRETCHES, held // 2))
    chosen: list[int] = []
    for part in range(stretches):
        end = count * (part + 1) // stretches
        length = held * (part + 1) // stretches - held * part // stretches
        chosen.extend(range(end - length, end))
    return chosen


def calibrate(
    net: EfficientAD,
    held_back: Sequence[PixelArray],
    false_rejects: float,
    inspected: NDArray[np.bool_] | None = None,
) -> Calibration:
    """Quantiles of both maps over all of ``held_back``, then a threshold on its scores.

    Args:
        net: trained, on the CPU, weights rounded by ``artifact.round_to_half``.
        held_back: good images that training did not see, prepared (h x w x 3 RGB, uint8).
        false_rejects: see ``threshold_from_good``.
        inspected: positions of a map that count (``frames.inspected``); None: all.

    Raises:
        ArtifactError: the maps are not finite, or flat: training has failed.
    """
    folded = FoldedEfficientAD(net, AS_THEY_ARE, inspected)
    counted = np.s_[...] if inspected is None else np.s_[:, inspected]
    local, globl = QuantileCollector(), QuantileCollector()
    kept: list[Maps] = []
    for image in held_back:
        rgb = torch.from_numpy(image).permute(2, 0, 1)[None].float().div_(255)
        _, maps = folded(rgb)
        kept.append(maps)
        try:
            local.add(maps.local.numpy()[counted])
            globl.add(maps.globl.numpy()[counted])
        except ValueError as error:
            raise ArtifactError("the trained networks give no finite map; train again") from error
    quantiles = Quantiles(
        local.quantile(A), local.quantile(B), globl.quantile(A), globl.quantile(B)
    )
    scores = tuple(_score(normalise_maps(maps, quantiles)) for maps in kept)
    tail = threshold_from_good(scores, false_rejects)
    return Calibration(quantiles, tail, scores, local.exact and globl.exact)


def _score(maps: Maps) -> float:
    """Maximum of the combined map."""
    return float(((maps.local + maps.globl) / 2).max())
