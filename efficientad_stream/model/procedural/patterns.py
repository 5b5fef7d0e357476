"""Patterns: what a surface may look like, as h x w float32 of mean 0 and deviation 1."""

from __future__ import annotations

import math
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Field: TypeAlias = NDArray[np.float32]
Generator = np.random.Generator
COARSEST = 2
"""Cells across the image in the first octave of noise."""


def as_field(array: object) -> Field:
    """OpenCV's or NumPy's result in single precision."""
    return np.asarray(array, np.float32)


def standard(field: Field) -> Field:
    """With mean 0 and deviation 1; all 0 if it is flat."""
    mean, deviation = cv2.meanStdDev(field)
    return as_field((field - np.float32(mean[0, 0])) / np.float32(max(deviation[0, 0], 1e-6)))


def noise(
    height: int, width: int, rng: Generator, fall: float, *, stretch: float = 1.0, finest: int = 1
) -> Field:
    """Noise whose amplitude falls with frequency f as f ** -(1 + ``fall``).

    Args:
        height: in pixels.
        width: in pixels.
        rng: of its values.
        fall: 0: as much in each octave, as in photographs; more: smoother.
        stretch: how many times longer than high its blotches are.
        finest: pixels a cell in the last octave.
    """
    total = np.zeros((height, width), np.float32)
    cells: float = COARSEST
    while cells * finest <= max(height, width):
        rows = max(2, round(cells * stretch**0.5 * height / max(height, width)))
        columns = max(2, round(cells / stretch**0.5 * width / max(height, width)))
        values = rng.standard_normal((min(rows, height), min(columns, width)), np.float32)
        smooth = cv2.resize(values, (width, height), interpolation=cv2.INTER_CUBIC)
        total += smooth * np.float32((cells / COARSEST) ** -fall)
        cells *= 2
    return standard(total)


def fractal(height: int, width: int, rng: Generator) -> Field:
    """Clouds, bark or gravel: noise of several spectra, folded into ridges now and then."""
    field = noise(height, width, rng, rng.uniform(-0.5, 0.8), stretch=np.exp(rng.normal(0, 0.6)))
    if rng.random() < 0.3:
        field = standard(abs(field))
    return field


def grating(height: int, width: int, rng: Generator) -> Field:
    """Stripes or a weave, of soft or hard edges, more or less bent."""
    y, x = _grid(height, width)
    wobble = noise(height, width, rng, 1.0, finest=8) * np.float32(rng.uniform(0, 1.5))
    field = np.zeros((height, width), np.float32)
    angle = rng.uniform(0, math.pi)
    for turned in range(1 + int(rng.random() < 0.4)):
        along = angle + turned * math.pi / 2
        wave = 2 * math.pi / math.exp(rng.uniform(math.log(4), math.log(40)))
        phase = x * np.float32(wave * math.cos(along)) + y * np.float32(wave * math.sin(along))
        field = field + np.tanh(np.sin(phase + wobble) * np.float32(rng.uniform(0.5, 4)))
    return standard(field)


def cells(height: int, width: int, rng: Generator) -> Field:
    """Cells of Voronoi: pebbles, scales or cracks; a tone for each, and darker seams."""
    count = int(np.exp(rng.uniform(math.log(20), math.log(700))))
    seeds = np.full((height, width), 255, np.uint8)
    rows, columns = rng.integers(0, height, count), rng.integers(0, width, count)
    seeds[rows, columns] = 0
    distance, labels = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    tones = rng.standard_normal(count + 1, np.float32)
    size = math.sqrt(height * width / count)
    dome = as_field(distance) / np.float32(size)
    return standard(np.float32(rng.uniform(0, 1)) * tones[labels] - 2 * dome)


def reaction(height: int, width: int, rng: Generator) -> Field:
    """Spots and labyrinths, as reaction and diffusion make them: noise of one scale, saturated."""
    sigma = math.exp(rng.uniform(math.log(1.2), math.log(8)))
    white = rng.standard_normal((height, width), np.float32)
    fine = cv2.GaussianBlur(white, (0, 0), sigma)
    band = standard(as_field(fine - cv2.GaussianBlur(fine, (0, 0), 1.6 * sigma)))
    steep, shift = rng.uniform(0.7, 4), rng.uniform(-1, 1)
    return standard(np.tanh(np.float32(steep) * (band + np.float32(shift))))


def relief(field: Field, rng: Generator) -> Field:
    """``field`` as a rough surface under a lamp from the side."""
    angle = rng.uniform(0, 2 * math.pi)
    kernel = as_field([-math.cos(angle), 0, math.cos(angle)])
    down = as_field([-math.sin(angle), 0, math.sin(angle)])
    slope = cv2.filter2D(field, -1, kernel[None, :]) + cv2.filter2D(field, -1, down[:, None])
    return standard(as_field(slope))


PATTERNS = (fractal, grating, cells, reaction)
SHARES = (0.62, 0.1, 0.16, 0.12)


def pattern(height: int, width: int, rng: Generator) -> Field:
    """Any of them, lit as a relief now and then."""
    field = PATTERNS[int(rng.choice(len(PATTERNS), p=SHARES))](height, width, rng)
    return relief(field, rng) if rng.random() < 0.2 else field


def _grid(height: int, width: int) -> tuple[Field, Field]:
    """Rows and columns in pixels, to be broadcast."""
    y = np.arange(height, dtype=np.float32)[:, None]
    return y, np.arange(width, dtype=np.float32)[None, :]
