"""Where the networks' input lies in a frame: the one transform between the two, both ways."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STRIDE = 4
"""Input pixels per position of a map, along either axis."""


class Rect(NamedTuple):
    """A rectangle of whole pixels; ``x`` and ``y`` are its left and its upper edge."""

    x: int
    y: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and its columns."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


class Placement(NamedTuple):
    """``source``, in pixels of a frame, is what the networks see as ``target`` of their input.

    Coordinates below are of points, not of pixels: pixel 3 reaches from 3.0 to 4.0.

    Attributes:
        frame: height and width of the frame.
    """

    frame: tuple[int, int]
    source: Rect
    target: Rect

    def to_input(self, x: float, y: float) -> tuple[float, float]:
        """The point of the input where a point of the frame comes to lie."""
        return _carry(x, y, self.source, self.target)

    def to_frame(self, x: float, y: float) -> tuple[float, float]:
        """The point of the frame that a point of the input shows."""
        return _carry(x, y, self.target, self.source)


def _carry(x: float, y: float, here: Rect, there: Rect) -> tuple[float, float]:
    """A point of ``here`` in ``there``; first multiplied, so that corners meet corners exactly."""
    return (
        (x - here.x) * there.width / here.width + there.x,
        (y - here.y) * there.height / here.height + there.y,
    )


def whole(frame: tuple[int, int], size: tuple[int, int]) -> Placement:
    """All of a frame as all of an input; both as height and width."""
    return Placement(frame, Rect(0, 0, frame[1], frame[0]), Rect(0, 0, size[1], size[0]))


def over_frame(
    values: NDArray[np.generic], place: Placement, size: tuple[int, int], outside: float = 0.0
) -> NDArray[np.float32]:
    """A map as a picture of the whole frame, bilinear between the middles of its positions.

    Args:
        values: a value for every 4 x 4 pixels of the input: a map with its border added.
        place: where the input lies in the frame.
        size: height and width of the picture; its pixels are spread evenly over the frame.
        outside: the value where the networks see nothing of the frame.

    Returns:
        Height x width, float32.
    """
    source, target = place.source, place.target
    seen, shown = (source.y, source.height), (target.y, target.height)
    rows = _Along.of(size[0], place.frame[0], seen, shown)
    seen, shown = (source.x, source.width), (target.x, target.width)
    columns = _Along.of(size[1], place.frame[1], seen, shown)
    picture = columns.of_rows(rows.of_rows(values.astype(np.float32)).T).T
    picture[~rows.inside] = outside
    picture[:, ~columns.inside] = outside
    return np.ascontiguousarray(picture)


class _Along(NamedTuple):
    """One axis of a picture: the position of the map under each pixel's middle."""

    position: NDArray[np.float64]
    inside: NDArray[np.bool_]

    @classmethod
    def of(cls, count: int, frame: int, seen: tuple[int, int], shown: tuple[int, int]) -> _Along:
        """Of ``count`` pixels over ``frame``; of what is seen and shown, the start and length."""
        (start, length), (there, length_there) = seen, shown
        middle = (np.arange(count) + 0.5) * frame / count
        inside = (middle >= start) & (middle < start + length)
        return cls(((middle - start) * length_there / length + there) / STRIDE - 0.5, inside)

    def of_rows(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """``values`` between its rows; beyond the middle of the outermost ones, these."""
        last = len(values) - 1
        position = np.clip(self.position, 0, last)
        below = np.floor(position).astype(np.intp)
        share = (position - below).astype(np.float32)[:, None]
        upper = values[np.minimum(below + 1, last)]
        return np.asarray(values[below] * (1 - share) + upper * share, np.float32)
