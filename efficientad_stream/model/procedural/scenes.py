"""Scenes: things in front of other things (dead leaves), surfaces, grass or hair, and pages.

A scene is a map of labels, 0 to 255, with a colour, a pattern and a shade for each label.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from efficientad_stream.model.procedural import shapes
from efficientad_stream.model.procedural.palette import palette, ramp
from efficientad_stream.model.procedural.patterns import (
    Field,
    Generator,
    as_field,
    fractal,
    noise,
    pattern,
)

Labels = NDArray[np.uint8]
LABELS = 256
MATERIALS = 3


def surface(height: int, width: int, rng: Generator) -> Field:
    """One material from edge to edge, h x w x 3 RGB."""
    field = pattern(height, width, rng)
    if rng.random() < 0.5:
        field = field * np.float32(0.5) + fractal(height, width, rng)
    return ramp(field, palette(int(rng.integers(2, 6)), rng))


def things(height: int, width: int, rng: Generator) -> Field:
    """Objects of all sizes in front of one another, h x w x 3 RGB."""
    labels = np.zeros((height, width), np.uint8)
    side = max(height, width)
    count = int(np.exp(rng.uniform(math.log(4), math.log(150))))
    smallest = rng.uniform(0.02, 0.15)
    sizes = smallest * side / np.sqrt(1 - rng.random(count) * (1 - smallest**2))
    for label, size in enumerate(sizes, start=1):
        points = shapes.outline(float(size), rng) + rng.random(2) * (width, height)
        shapes.fill(labels, points, label)
    return paint(labels, rng)


def scenery(height: int, width: int, rng: Generator) -> Field:
    """Sky or wall, ground, and a few things on it, h x w x 3 RGB."""
    labels = np.zeros((height, width), np.uint8)
    columns = np.linspace(0, width, 24)
    for label in range(1, int(rng.integers(2, 6))):
        level = height * rng.uniform(0.2, 1)
        ridge = level + np.cumsum(rng.normal(0, height * rng.uniform(0, 0.03), 24))
        line = np.stack([columns, ridge], axis=1)
        below = np.array([[width, 2 * height], [0, 2 * height]], np.float64)
        shapes.fill(labels, np.concatenate([line, below]), label)
    for label in range(10, 10 + int(rng.integers(0, 20))):
        points = shapes.outline(height * rng.uniform(0.05, 0.5), rng)
        shapes.fill(labels, points + rng.random(2) * (width, height), label)
    return paint(labels, rng)


def strands(height: int, width: int, rng: Generator) -> Field:
    """Grass, fur, twigs or wires, h x w x 3 RGB."""
    labels = np.zeros((height, width), np.uint8)
    side = max(height, width)
    angle, disorder = rng.uniform(0, 2 * math.pi), rng.uniform(0.05, 1)
    length, width_px = side * rng.uniform(0.05, 0.6), int(rng.integers(1, 5))
    for _ in range(int(rng.integers(40, 300))):
        line = shapes.curve(length, angle + disorder * rng.normal(), rng.normal(0, 0.6))
        place = rng.random(2) * (width, height)
        shapes.stroke(labels, line + place, int(rng.integers(1, 60)), width_px)
    return paint(labels, rng)


def page(height: int, width: int, rng: Generator) -> Field:
    """Rows of small marks like writing, or plates and windows, h x w x 3 RGB."""
    labels = np.zeros((height, width), np.uint8)
    pitch = rng.uniform(6, 40)
    thick = max(1, int(pitch / rng.uniform(6, 12)))
    ink = int(rng.integers(1, 30))
    for y in np.arange(rng.uniform(0, pitch), height, 1.5 * pitch):
        x = rng.uniform(0, 3 * pitch)
        while x < width:
            corners = rng.random((int(rng.integers(2, 5)), 2)) * (0.6 * pitch, pitch)
            shapes.stroke(labels, corners + np.array([x, y]), ink, thick)
            x += pitch * (0.75 if rng.random() < 0.85 else 1.6)
    return paint(labels, rng)


def paint(labels: Labels, rng: Generator) -> Field:
    """Colour, pattern, gradient and darker rims for every label: h x w x 3 RGB."""
    height, width = labels.shape
    materials = np.stack([pattern(height, width, rng) for _ in range(MATERIALS)])
    which = rng.integers(0, MATERIALS, LABELS).astype(np.intp)[labels]
    texture = np.take_along_axis(materials, which[None], axis=0)[0]
    loud = as_field(rng.gamma(1.0, rng.uniform(0.02, 0.12), LABELS))
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    slope = as_field(rng.normal(0, 0.12, (2, LABELS)))
    shade = 1 + loud[labels] * texture * 2 + slope[0][labels] * x + slope[1][labels] * y
    if rng.random() < 0.6:
        shade *= rims(labels, rng)
    few = palette(int(rng.integers(3, 12)), rng)
    colours = few[rng.integers(0, len(few), LABELS)] + as_field(rng.normal(0, 0.03, (LABELS, 3)))
    return as_field(colours[labels] * shade[..., None])


def rims(labels: Labels, rng: Generator) -> Field:
    """Darker next to where two labels meet, as what is round or lies in a shadow is."""
    same = (cv2.dilate(labels, np.ones((2, 2), np.uint8)) == labels).astype(np.uint8)
    if same.all():
        return np.ones(labels.shape, np.float32)
    distance = as_field(cv2.distanceTransform(same, cv2.DIST_L2, 3))
    wide = np.float32(math.exp(rng.uniform(math.log(1), math.log(25))))
    return as_field(1 - np.float32(rng.uniform(0.1, 0.7)) * np.exp(-distance / wide))


SCENES = (things, scenery, surface, strands, page)
SHARES = (0.46, 0.2, 0.14, 0.14, 0.06)


def scene(height: int, width: int, rng: Generator) -> NDArray[np.uint8]:
    """Any of them as a camera would take it: h x w x 3 RGB, uint8."""
    image = SCENES[int(rng.choice(len(SCENES), p=SHARES))](height, width, rng)
    return photograph(image, rng)


def photograph(image: Field, rng: Generator) -> NDArray[np.uint8]:
    """Uneven light, lens, exposure and noise on top of a scene (h x w x 3, about 0 to 1)."""
    height, width = image.shape[:2]
    light = noise(height, width, rng, 1.2, finest=16) * np.float32(rng.uniform(0, 0.2))
    image = image * (1 + light)[..., None]
    image = as_field(cv2.GaussianBlur(image, (0, 0), math.exp(rng.uniform(-0.9, 0.6))))
    grey = image[..., 1]
    contrast = min(4.0, rng.uniform(0.12, 0.32) / max(float(grey.std()), 0.02))
    brightness = np.clip(rng.normal(0.45, 0.15), 0.1, 0.85) - contrast * float(grey.mean())
    grain = rng.standard_normal((height, width), np.float32) * np.float32(rng.gamma(1, 1.8))
    image = image * np.float32(255 * contrast) + np.float32(255 * brightness)
    image += grain[..., None]
    return np.asarray(cv2.convertScaleAbs(np.maximum(image, 0)), np.uint8)
