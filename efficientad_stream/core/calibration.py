"""Quantiles of maps without a limit on their number, and thresholds from good parts only.

Source of the quantiles: arXiv 2303.14535, section 3.4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

EXACT_LIMIT = 1 << 26
"""Up to so many values (256 MiB) are kept and the quantile is exact."""
MANTISSA_BITS = 12
RELATIVE_ERROR = 2.0 ** -(MANTISSA_BITS + 1)
"""Bound of the streaming quantile's error, relative to the exact one: 1.2e-4."""
_SHIFT = 23 - MANTISSA_BITS
_BINS = 1 << (8 + MANTISSA_BITS)
SMALLEST = float(np.finfo(np.float32).tiny)
"""Values below the smallest normal float32 (1.2e-38) count as zero."""


def exact_quantile(values: ArrayLike, p: float) -> float:
    """The p-quantile of all ``values``, interpolated linearly between order statistics.

    The default definition of ``numpy.quantile`` and ``torch.quantile``, without the latter's limit
    of 2^24 elements; selects instead of sorting.

    Args:
        values: any shape, at least one element, finite.
        p: from 0 to 1.

    Raises:
        ValueError: no values, or ``p`` out of range.
    """
    flat = np.asarray(values).reshape(-1)
    if not flat.size or not 0.0 <= p <= 1.0:
        raise ValueError(f"no quantile {p} of {flat.size} values")
    position = p * (flat.size - 1)
    below = math.floor(position)
    above = min(below + 1, flat.size - 1)
    chosen = np.partition(flat, [below, above])
    low, high = float(chosen[below]), float(chosen[above])
    return low + (high - low) * (position - below)


class QuantileCollector:
    """Quantiles of a stream of maps: exact while they fit, then from a histogram.

    The histogram's bins are the upper 20 bits of a float32 (exponent and 12 bits of mantissa): they
    are in the order of the values, and none is wider than 2^-12 of the values in it. So its middle
    is within ``RELATIVE_ERROR`` of each of them, for any distribution and any number of values,
    in 8 MiB.
    """

    def __init__(self, exact_limit: int = EXACT_LIMIT) -> None:
        self._limit = exact_limit
        self._kept: list[NDArray[np.float32]] = []
        self._bins: NDArray[np.int64] | None = None
        self.count = 0
        """Number of values added."""

    @property
    def exact(self) -> bool:
        """True as long as every value is kept."""
        return self._bins is None

    def add(self, values: ArrayLike) -> None:
        """Take in a map of any shape.

        Raises:
            ValueError: a value is negative or not finite.
        """
        flat = np.array(values, dtype=np.float32).reshape(-1)
        if not np.isfinite(flat).all() or (flat < 0).any():
            raise ValueError("maps must be finite and not negative")
        self.count += flat.size
        if self._bins is None:
            self._kept.append(flat)
            if self.count <= self._limit:
                return
            self._bins = np.zeros(_BINS, np.int64)
            for kept in self._kept:
                self._bins += _histogram(kept)
            self._kept.clear()
        else:
            self._bins += _histogram(flat)

    def quantile(self, p: float) -> float:
        """The p-quantile of everything added: exact, or within ``RELATIVE_ERROR`` of it.

        Raises:
            ValueError: nothing was added, or ``p`` out of range.
        """
        if self._bins is None:
            kept = np.concatenate(self._kept) if self._kept else np.empty(0, np.float32)
            return exact_quantile(kept, p)
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"no quantile {p}")
        position = p * (self.count - 1)
        below = math.floor(position)
        above = min(below + 1, self.count - 1)
        upto = np.cumsum(self._bins)
        first, second = (int(i) for i in np.searchsorted(upto, [below, above], side="right"))
        low, high = _middle(first), _middle(second)
        return low + (high - low) * (position - below)


def _histogram(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many of ``values`` (not negative) fall into each bin."""
    values = np.where(values < SMALLEST, np.float32(0), values)
    return np.bincount(values.view(np.uint32) >> _SHIFT, minlength=_BINS)


def _middle(index: int) -> float:
    """The value in the middle of a bin; zero for the bin of zero."""
    if index == 0:
        return 0.0
    edges = np.array([index << _SHIFT, (index + 1) << _SHIFT], np.uint32).view(np.float32)
    return float(edges[0]) / 2 + float(edges[1]) / 2


SMALLEST_MARGIN = 0.01
"""A tenth of the distance between the a and the b quantile on the scale of scores."""


@dataclass(frozen=True)
class GoodTail:
    """A threshold for scores of good parts, and what it rests on.

    Attributes:
        threshold: a score at or above it fails.
        worst: the highest score of a known-good part.
        tail_parts: how many of the highest scores the tail was fitted to.
        tail_scale: mean of their excess over the next lower score.
    """

    threshold: float
    worst: float
    tail_parts: int
    tail_scale: float


def threshold_from_good(scores: ArrayLike, false_rejects: float = 1e-3) -> GoodTail:
    """A threshold that good parts should reach only with probability ``false_rejects``.

    The highest of n scores says where one in n lies, not one in a thousand, and it is the least
    certain number of the sample. So the upper third of the scores (at least two, at most 100) is
    taken for the beginning of an exponential tail: with u the next lower score and beta the mean
    excess of the k scores over it, the threshold is u + beta ln(k / (n p)), which that tail exceeds
    with probability p. It is never less than the highest good score plus ``SMALLEST_MARGIN``: all
    known-good parts pass, whatever rounding another engine has.

    Source: peaks over threshold with an exponential excess, i.e. a generalised Pareto tail of shape
    0 (Pickands 1975); beta is its maximum-likelihood estimate.

    Args:
        scores: of good parts that training did not see; at least one, finite.
        false_rejects: probability to aim for, above 0 and below 1.

    Raises:
        ValueError: no scores, not finite, or a probability out of range.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64).reshape(-1))
    if not ordered.size or not np.isfinite(ordered).all():
        raise ValueError("a threshold needs at least one score, all of them finite")
    if not 0.0 < false_rejects < 1.0:
        raise ValueError(f"false_rejects: {false_rejects} is not between 0 and 1")
    worst = float(ordered[-1])
    least = worst + SMALLEST_MARGIN
    parts = min(max(2, math.ceil(ordered.size / 3)), 100, ordered.size - 1)
    if parts < 1:
        return GoodTail(least, worst, 0, 0.0)
    start = float(ordered[-parts - 1])
    scale = float(ordered[-parts:].mean()) - start
    reach = max(0.0, math.log(parts / (ordered.size * false_rejects)))
    return GoodTail(max(least, start + scale * reach), worst, parts, scale)
