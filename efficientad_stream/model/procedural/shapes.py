"""Outlines: objects, strokes, and marks like writing."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from efficientad_stream.model.procedural.patterns import Generator

SHIFT = 4
"""Outlines are given to OpenCV in sixteenths of a pixel."""


def outline(size: float, rng: Generator) -> NDArray[np.float64]:
    """Of an object: n x 2 (x, y) around the origin, about ``size`` across: blob or polygon."""
    if rng.random() < 0.4:
        corners = int(rng.choice([3, 4, 4, 4, 5, 6]))
        angle = 2 * math.pi * np.arange(corners) / corners + rng.uniform(0, 2 * math.pi)
        radius = np.full(corners, 0.5)
    else:
        angle = np.linspace(0, 2 * math.pi, 40, endpoint=False)
        waves, phases = np.arange(2, 6), rng.uniform(0, 2 * math.pi, 4)
        rough = rng.uniform(0, 0.5) * rng.random(4) / waves
        radius = 0.5 * (1 + rough @ np.cos(waves[:, None] * angle + phases[:, None]))
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points[:, 0] *= np.exp(rng.normal(0, 0.5))
    turn = rng.choice([0, math.pi / 2]) if rng.random() < 0.4 else rng.uniform(0, math.pi)
    cos, sin = math.cos(turn), math.sin(turn)
    return np.asarray(size * points @ np.array([[cos, sin], [-sin, cos]]))


def fill(labels: NDArray[np.uint8], points: NDArray[np.float64], label: int) -> None:
    """Write ``label`` inside of an outline, in place."""
    cv2.fillPoly(labels, [_fixed(points)], label, cv2.LINE_8, SHIFT)


def stroke(labels: NDArray[np.uint8], points: NDArray[np.float64], label: int, width: int) -> None:
    """Write ``label`` along a line, in place."""
    cv2.polylines(labels, [_fixed(points)], False, label, width, cv2.LINE_8, SHIFT)


def curve(length: float, angle: float, bend: float) -> NDArray[np.float64]:
    """A line from the origin that turns by ``bend`` radians: 8 x 2."""
    along = np.linspace(0, 1, 8)
    heading = angle + bend * (along - 0.5)
    steps = np.stack([np.cos(heading), np.sin(heading)], axis=1) * length / 7
    return np.asarray(np.cumsum(steps, axis=0) - steps[0])


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.rint(points * (1 << SHIFT)).astype(np.int32)
