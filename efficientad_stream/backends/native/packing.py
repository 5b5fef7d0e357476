"""Weights in the order in which the kernels read them; the layouts are in ``api.h``.

All take K x C x r x r filters, float32, and return one flat array.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from efficientad_stream.backends.native.winograd import transform_weights

Array = NDArray[np.float32]


def direct(weight: Array, panel: int) -> Array:
    """[K / panel][r * r * C][panel]."""
    out_channels = weight.shape[0]
    by_tap = weight.transpose(0, 2, 3, 1).reshape(out_channels // panel, panel, -1)
    return np.ascontiguousarray(by_tap.transpose(0, 2, 1)).ravel()


def winograd(weight: Array, m: int, chunk: int, panel: int) -> Array:
    """[K / chunk][n * n][chunk / panel][C][panel]."""
    points = transform_weights(weight, m)
    count, in_channels, out_channels = points.shape
    split = points.reshape(count, in_channels, out_channels // chunk, chunk // panel, panel)
    return np.ascontiguousarray(split.transpose(2, 0, 3, 1, 4)).ravel()
