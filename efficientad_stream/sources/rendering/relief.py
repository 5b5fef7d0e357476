"""Shapes as signed distances, and light on a surface given by its height.

Distances, heights and sizes are in pixels; a distance is negative inside its shape. The light
stands at the upper left, as in most drawings, and is soft.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
"""One number a pixel, h x w float32."""
Real = NDArray[np.floating[Any]]
Colours = NDArray[np.float32]
"""BGR a pixel, h x w x 3 float32, 0 to 255."""
Pixels = NDArray[np.uint8]

LIGHT = np.array([-0.46, -0.56, 0.69], np.float32)
"""Unit vector to the light: x right, y down, z to the camera."""
HALF = (LIGHT + np.array([0, 0, 1], np.float32)) / np.linalg.norm(LIGHT + np.array([0, 0, 1]))


def field(values: Any) -> Field:
    """``values`` as float32."""
    return np.asarray(values, np.float32)


def grid(height: int, width: int, y0: float, x0: float) -> tuple[Field, Field]:
    """Coordinates y and x of every pixel, relative to the point (``y0``, ``x0``)."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return field(y - y0), field(x - x0)


def cover(distance: Real, soft: float = 1.0) -> Field:
    """Share of each pixel inside the shape, 0 to 1, over an edge ``soft`` pixels wide."""
    return field(np.clip(0.5 - distance / soft, 0, 1))


def hexagon(y: Field, x: Field, apothem: float, angle: float) -> Field:
    """Distance to a hexagon of the given ``apothem``, turned by ``angle`` radians."""
    turns = [angle + k * np.pi / 3 for k in range(3)]
    sides = [np.abs(x * np.cos(t) + y * np.sin(t)) for t in turns]
    return field(np.maximum.reduce(sides) - apothem)


def box(y: Field, x: Field, half_height: float, half_width: float, radius: float) -> Field:
    """Distance to a box with rounded corners."""
    qy, qx = np.abs(y) - half_height + radius, np.abs(x) - half_width + radius
    outside = np.hypot(np.maximum(qy, 0), np.maximum(qx, 0))
    return field(outside + np.minimum(np.maximum(qy, qx), 0) - radius)


def blur(values: Real, sigma: float) -> Field:
    """Gaussian blur."""
    return field(cv2.GaussianBlur(field(values), (0, 0), max(sigma, 0.1)))


def noise(
    rng: np.random.Generator, height: int, width: int, sigma: float, stretch: float = 1.0
) -> Field:
    """Smooth noise of unit deviation, periodic along x.

    Its features are about ``sigma`` pixels high and ``stretch`` times as wide.
    """
    step = max(1.0, sigma)
    rows, cols = int(height / step) + 4, max(2, round(width / (step * stretch)))
    coarse = rng.standard_normal((rows, cols), dtype=np.float32)
    fine = cv2.resize(np.tile(coarse, 3), (3 * width, height), interpolation=cv2.INTER_CUBIC)
    middle = fine[:, width : 2 * width]
    return field(middle / max(float(middle.std()), 1e-6))


def shade(height: Field, albedo: Colours, gloss: float, shine: float) -> Colours:
    """The surface as the camera sees it; where it is flat, ``albedo`` comes out as it is.

    Args:
        height: h x w, pixels.
        albedo: h x w x 3, colour of the flat surface.
        gloss: strength of the highlight, 0 to 1.
        shine: its exponent; higher is smaller and sharper.
    """
    dy, dx = np.gradient(height)
    length = np.sqrt(dx * dx + dy * dy + 1)
    facing = (-dx * LIGHT[0] - dy * LIGHT[1] + LIGHT[2]) / length
    diffuse = 0.22 + 0.78 * np.clip(facing, 0, 1) / LIGHT[2]
    half = np.clip((-dx * HALF[0] - dy * HALF[1] + HALF[2]) / length, 0, 1)
    glint = gloss * (half**shine - HALF[2] ** shine)
    hollow = np.clip(blur(height, 5) - height, 0, 12) / 12
    lit = albedo * ((diffuse * (1 - 0.6 * hollow))[..., None]) + 255 * glint[..., None]
    return field(np.clip(lit, 0, 255))


def emboss(bgr: Pixels, depth: Field, slope: float, dark: float) -> None:
    """Press ``depth`` (0 to 1) into a finished picture, in place.

    Args:
        bgr: h x w x 3 uint8.
        depth: how deep each pixel lies.
        slope: how strongly the walls catch or lose the light.
        dark: how much of the light the bottom loses, 0 to 1.
    """
    dy, dx = np.gradient(depth)
    walls = slope * (dx * LIGHT[0] + dy * LIGHT[1])
    factor = np.clip(1 + walls, 0, 3) * (1 - dark * depth)
    bgr[:] = np.clip(bgr * factor[..., None], 0, 255).astype(np.uint8)


def blend(bgr: Pixels, colour: Colours | tuple[float, float, float], alpha: Field) -> None:
    """Lay ``colour`` over ``bgr`` with opacity ``alpha``, in place."""
    a = alpha[..., None]
    bgr[:] = (bgr * (1 - a) + np.asarray(colour, np.float32) * a).astype(np.uint8)
