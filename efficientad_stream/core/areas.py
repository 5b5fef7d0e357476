"""The area under a curve of what is found against the false positive rate, exactly.

All areas come from one formula. Such a curve is a sum over the positives, each of which rises from
0 to its weight where the threshold passes its score; so the area under the curve is a weighted sum
over the positives of how many negatives lie below each. Nothing is binned or sampled. Ties are
joined by straight lines, as the trapezoidal rule has it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def rates(
    negatives: Sequence[NDArray[np.floating]], positives: NDArray[np.floating]
) -> tuple[Floats, Floats]:
    """The false positive rate just above the score of each positive, and at it.

    Args:
        negatives: one or more arrays, each sorted ascending; together not empty.
        positives: scores of what is to be found, in any order.
    """
    above = np.zeros(positives.size)
    upto = np.zeros(positives.size)
    for some in negatives:
        above += some.size - np.searchsorted(some, positives, side="right")
        upto += some.size - np.searchsorted(some, positives, side="left")
    total = sum(some.size for some in negatives)
    return above / total, upto / total


def area(above: Floats, upto: Floats, weights: Floats, limit: float) -> float:
    """Area below the curve up to the false positive rate ``limit``, divided by ``limit``.

    Args:
        above: of each positive, as ``rates`` has it.
        upto: likewise.
        weights: what each positive adds to the curve; they sum to 1.
        limit: above 0, at most 1.
    """
    after = np.maximum(0.0, limit - upto)
    run = np.clip(limit - above, 0.0, upto - above)
    tied = upto > above
    rise = np.zeros(above.size)
    rise[tied] = run[tied] ** 2 / (2 * (upto - above)[tied])
    return float(np.dot(weights, after + rise) / limit)
