"""How good is a recipe: AU-ROC, AU-PRO, F1, escapes and false rejects.

All areas come from one formula. A curve of true against false positive rate is a sum over the
positives, each of which rises from 0 to its weight where the threshold passes its score; so the
area under the curve is a weighted sum over the positives of how many negatives lie below each.
Nothing is binned or sampled. Ties are joined by straight lines, as the trapezoidal rule has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

PRO_LIMIT = 0.3
"""False positive rate up to which the AU-PRO integrates."""

Floats = NDArray[np.float64]


def auroc(scores: ArrayLike, defective: ArrayLike) -> float:
    """Area under the ROC curve.

    Args:
        scores: any shape, finite; higher is more anomalous.
        defective: same shape, true where defective.

    Raises:
        ValueError: only one class, shapes that differ, or a score that is not finite.
    """
    values, positive = _checked(scores, defective)
    negatives = np.sort(values[~positive])
    found = values[positive]
    return _area(negatives, found, np.full(found.size, 1.0 / found.size), 1.0)


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


def _area(
    negatives: NDArray[np.floating], positives: NDArray[np.floating], weights: Floats, limit: float
) -> float:
    """Area below the curve up to the false positive rate ``limit``, divided by ``limit``.

    Args:
        negatives: sorted ascending.
        positives: scores of what is to be found.
        weights: what each adds to the curve; they sum to 1.
        limit: above 0, at most 1.
    """
    total = negatives.size
    begin = 1.0 - np.searchsorted(negatives, positives, side="right") / total
    end = 1.0 - np.searchsorted(negatives, positives, side="left") / total
    after = np.maximum(0.0, limit - end)
    run = np.clip(limit - begin, 0.0, end - begin)
    tied = end > begin
    rise = np.zeros(positives.size)
    rise[tied] = run[tied] ** 2 / (2 * (end - begin)[tied])
    return float(np.dot(weights, after + rise) / limit)


class PixelCurves:
    """Pixel AU-ROC and AU-PRO over all maps of a data set.

    Keeps every pixel as a float32: 4 bytes for a good one, 12 for a defective one.
    """

    def __init__(self) -> None:
        self._good: list[NDArray[np.float32]] = []
        self._defective: list[NDArray[np.float32]] = []
        self._shares: list[Floats] = []
        self.components = 0
        """Connected defects added so far."""

    def add(self, anomaly_map: ArrayLike, labels: ArrayLike) -> None:
        """Take in one image.

        Args:
            anomaly_map: H x W, finite.
            labels: H x W integers: 0 where good, 1, 2, ... for each connected defect.

        Raises:
            ValueError: shapes that differ, or a map that is not finite.
        """
        values = np.asarray(anomaly_map, dtype=np.float32)
        marks = np.asarray(labels)
        if values.shape != marks.shape or not np.isfinite(values).all():
            raise ValueError(f"map {values.shape}, labels {marks.shape}: differ, or not finite")
        inside = marks > 0
        self._good.append(values[~inside])
        if not inside.any():
            return
        _, which, sizes = np.unique(marks[inside], return_inverse=True, return_counts=True)
        self._defective.append(values[inside])
        self._shares.append(1.0 / sizes[which])
        self.components += sizes.size

    def areas(self, limit: float = PRO_LIMIT) -> tuple[float, float] | None:
        """Pixel AU-ROC, and AU-PRO up to the false positive rate ``limit``.

        The per-region overlap is the mean, over connected defects, of the share found of each; the
        false positive rate is over all good pixels of all images. The area is divided by ``limit``.
        None if there is no defective pixel, or no good one. Source: Bergmann et al., "The MVTec
        Anomaly Detection Dataset", IJCV 2021.
        """
        good = np.concatenate(self._good) if self._good else np.empty(0, np.float32)
        if not self.components or not good.size:
            return None
        good.sort()
        found = np.concatenate(self._defective)
        even = np.full(found.size, 1.0 / found.size)
        shares = np.concatenate(self._shares) / self.components
        return _area(good, found, even, 1.0), _area(good, found, shares, limit)


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
