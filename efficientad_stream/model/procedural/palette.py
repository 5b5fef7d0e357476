"""Colours as they are found outdoors and indoors: mostly dull; earth, leaves and sky."""

from __future__ import annotations

import math

import numpy as np

from efficientad_stream.model.procedural.patterns import Field, Generator, as_field

HUES = (25.0, 30.0, 45.0, 85.0, 210.0)
"""Skin, brick, wood and sand, leaves, sky: degrees."""


def palette(count: int, rng: Generator) -> Field:
    """``count`` colours that go together, count x 3 RGB, float32, about 0 to 1."""
    main = rng.choice(HUES) + rng.normal(0, 15)
    mood = rng.gamma(1.6, 0.042)
    hues = np.where(rng.random(count) < 0.75, main + rng.normal(0, 18, count), 0)
    hues = np.where(hues == 0, rng.uniform(0, 360, count), hues)
    strength = mood * rng.gamma(2.0, 0.5, count)
    middle, spread = rng.uniform(0.25, 0.65), rng.uniform(0.08, 0.3)
    luma = np.clip(rng.normal(middle, spread, count), 0.02, 0.98)
    return as_field(luma[:, None] + strength[:, None] * _direction(hues))


def _direction(hues: object) -> Field:
    """How red, green and blue differ from grey: one row a hue, given in degrees."""
    angle = np.radians(np.asarray(hues, np.float64))[:, None]
    third = 2 * math.pi / 3
    return as_field(np.cos(angle - np.array([0, third, 2 * third])))


def ramp(field: Field, colours: Field) -> Field:
    """``field`` (h x w, mean 0, deviation 1) with every value a colour between neighbours.

    Args:
        field: values from -1.5 to 1.5 go from the first colour to the last.
        colours: n x 3.
    """
    places = np.clip((field + 1.5) / 3, 0, 1)
    at = np.linspace(0, 1, len(colours))
    fine = np.linspace(0, 1, 256)
    table = as_field(np.stack([np.interp(fine, at, channel) for channel in colours.T], axis=1))
    return as_field(table[np.rint(places * 255).astype(np.intp)])
