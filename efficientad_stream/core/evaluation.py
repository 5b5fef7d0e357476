"""How well a recipe tells parts apart: AU-ROC, F1, escapes and false rejects.

How well it finds where a defect is: ``localisation.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from efficientad_stream.core.areas import area, rates

ESCAPE_RATES = (0.0, 0.01, 0.05)
"""Shares of the defective parts that are allowed to escape, for ``at_escapes``."""


def auroc(scores: ArrayLike, defective: ArrayLike) -> float:
    """Area under the ROC curve.

    Args:
        scores: any shape, finite; higher is more anomalous.
        defective: same shape, true where defective.

    Raises:
        ValueError: only one class, shapes that differ, or a score that is not finite.
    """
    values, positive = _checked(scores, defective)
    found = values[positive]
    passed = rates([np.sort(values[~positive])], found)
    return area(*passed, np.full(found.size, 1.0 / found.size), 1.0)


def _checked(
    scores: ArrayLike, defective: ArrayLike
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    values = np.asarray(scores)
    positive = np.asarray(defective, dtype=bool)
    if values.dtype != np.float32:
        values = values.astype(np.float64)
    if values.shape != positive.shape:
        raise ValueError(f"{values.shape} scores and {positive.shape} labels")
    if not np.isfinite(values).all():
        raise ValueError("a score is not finite")
    if positive.all() or not positive.any():
        raise ValueError("an area needs good and defective ones")
    return values.reshape(-1), positive.reshape(-1)


@dataclass(frozen=True)
class BestF1:
    """The highest F1 and the highest threshold that reaches it (a score at or above it fails)."""

    f1: float
    threshold: float


def best_f1(scores: ArrayLike, defective: ArrayLike) -> BestF1:
    """The best F1 of any threshold: what a threshold chosen on the test set would give.

    Raises:
        ValueError: as ``auroc``.
    """
    values, positive = _checked(scores, defective)
    order = np.argsort(-values, kind="stable")
    values, positive = values[order], positive[order]
    found = np.cumsum(positive)
    rejected = np.arange(1, values.size + 1)
    f1 = 2 * found / (rejected + found[-1])
    last_of_ties = np.append(values[1:] != values[:-1], True)
    f1 = np.where(last_of_ties, f1, -1.0)
    best = int(np.argmax(f1))
    return BestF1(float(f1[best]), float(values[best]))


@dataclass(frozen=True)
class Outcome:
    """What a threshold does to labelled parts; a score that is not finite rejects.

    Attributes:
        defective, escapes: defective parts, and how many of them passed.
        good, false_rejects: good parts, and how many of them were rejected.
    """

    defective: int
    escapes: int
    good: int
    false_rejects: int


def outcome(scores: ArrayLike, defective: ArrayLike, threshold: float) -> Outcome:
    """Escapes and false rejects at ``threshold``."""
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    positive = np.asarray(defective, dtype=bool).reshape(-1)
    passed = np.isfinite(values) & (values < threshold)
    return Outcome(
        defective=int(positive.sum()),
        escapes=int((positive & passed).sum()),
        good=int((~positive).sum()),
        false_rejects=int((~positive & ~passed).sum()),
    )


@dataclass(frozen=True)
class OperatingPoint:
    """The highest threshold that lets at most so many defective parts escape, and its price.

    Attributes:
        allowed: share of the defective parts that may escape, from 0 to 1.
        threshold: infinite if no defective part has a finite score.
        escapes, false_rejects: how many there are at it.
        false_reject_rate: share of the good parts.
    """

    allowed: float
    threshold: float
    escapes: int
    false_rejects: int
    false_reject_rate: float


def at_escapes(
    scores: ArrayLike, defective: ArrayLike, allowed: Sequence[float] = ESCAPE_RATES
) -> list[OperatingPoint]:
    """What few escapes would cost in good parts, were the threshold chosen on these very parts.

    A score that is not finite rejects, so it never escapes. Of n defective parts, floor(allowed n)
    may escape; the threshold is the lowest score of those that may not.

    Raises:
        ValueError: good or defective parts are missing, or ``allowed`` is not in [0, 1).
    """
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    positive = np.asarray(defective, dtype=bool).reshape(-1)
    if positive.all() or not positive.any():
        raise ValueError("an operating point needs good and defective ones")
    values = np.where(np.isfinite(values), values, np.inf)
    found = np.sort(values[positive])
    return [_point(values, positive, found, share) for share in allowed]


def _point(
    values: NDArray[np.float64],
    positive: NDArray[np.bool_],
    found: NDArray[np.float64],
    share: float,
) -> OperatingPoint:
    if not 0.0 <= share < 1.0:
        raise ValueError(f"{share} is no share of escapes")
    rounding = 1e-9  # 0.29 x 100 is 28.999999999999996
    threshold = float(found[math.floor(share * found.size + rounding)])
    at = outcome(values, positive, threshold)
    return OperatingPoint(
        share, threshold, at.escapes, at.false_rejects, at.false_rejects / at.good
    )
