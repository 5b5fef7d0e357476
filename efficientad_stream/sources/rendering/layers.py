"""The layers of the part, drawn once: the bare flange, screws, holes, label, turning marks.

Lengths below are those of a frame of 640 x 480; every function multiplies them by ``scale``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from efficientad_stream.sources.rendering.relief import (
    LIGHT,
    Colours,
    Field,
    Pixels,
    blend,
    blur,
    box,
    cover,
    emboss,
    field,
    grid,
    hexagon,
    noise,
    shade,
)

RIM = 196.0
"""Radius of the part."""
CHAMFER = 7.0
SEAL = 84.0
"""Radius of the seal's centre line."""
SEAL_HALF = 7.5
HUB = 70.0
BORE = 45.0
CIRCLE = 140.0
"""Radius of the circle on which screws, dowel holes, engraving and label lie."""
SCREW = 19.0
SINK = 25.0
"""Radius of the counterbore that a screw's head lies in."""
DOWEL = 11.0
LABEL_HALF = (24.0, 54.0)
"""Half height and half width."""
MARGIN = 26.0
"""Room around the part for its shadow."""

_DIAGONAL = CIRCLE * float(np.sqrt(0.5))
SCREWS = tuple((sy * _DIAGONAL, sx * _DIAGONAL) for sy in (-1, 1) for sx in (-1, 1))
"""Centres (y, x) of the screws relative to the part's."""
DOWELS = ((0.0, CIRCLE), (0.0, -CIRCLE))
LABEL = (CIRCLE, 0.0)
ENGRAVING = (-CIRCLE, 0.0)

STEEL = (172.0, 167.0, 160.0)
ZINC = (204.0, 203.0, 198.0)
SEAL_COLOUR = (34.0, 88.0, 216.0)
PAPER = (216.0, 226.0, 229.0)
INK = (42.0, 38.0, 36.0)


@dataclass
class Canvas:
    """A part, or a piece of one, not yet on the belt.

    Attributes:
        bgr: light from the part, h x w x 3 uint8, black where there is no part.
        veil: how much of the belt shows, h x w uint8: 255 all of it, less in the shadow.
    """

    bgr: Pixels
    veil: Pixels


@dataclass(frozen=True)
class Sprite:
    """A piece to be laid on a canvas: ``bgr`` uint8 with opacity ``alpha``, 0 to 1."""

    bgr: Pixels
    alpha: Field


def canvas_side(scale: float) -> int:
    """Height and width of a canvas; odd, so that the part's centre is a pixel."""
    return 2 * int(np.ceil((RIM + MARGIN) * scale)) + 1


def draw_bare(scale: float) -> Canvas:
    """The flange without screws, dowel holes, label and turning marks."""
    side = canvas_side(scale)
    y, x = grid(side, side, side // 2, side // 2)
    r = np.hypot(y, x)
    bgr = shade(_height(y, x, r, scale), _albedo(r, scale), gloss=0.35, shine=24)
    flat = cover(np.abs(r - 143 * scale) - 45 * scale) + cover(np.abs(r - 57 * scale) - 11 * scale)
    bgr *= (1 + (_sheen(y, x) - 1) * np.minimum(flat, 1))[..., None]
    lit = np.clip(bgr, 0, 255).astype(np.uint8)
    _engrave(lit, scale)
    for at in SCREWS:
        _drill(lit, y - at[0] * scale, x - at[1] * scale, 11 * scale)
    solid = cover(np.maximum(r - RIM * scale, BORE * scale - r))
    lit = (lit * solid[..., None]).astype(np.uint8)
    return Canvas(_wall(lit, y, x, r, scale), _veil(y, x, r, solid, scale))


def _height(y: Field, x: Field, r: Field, scale: float) -> Field:
    """Height of the bare flange above the belt."""
    edge = np.clip((RIM * scale - r) / (CHAMFER * scale), 0, 1) * 5 * scale
    hub = np.clip((HUB * scale - r) / (3 * scale), 0, 1) * 3 * scale
    mouth = np.clip((r - BORE * scale) / (5 * scale), 0, 1) * 4 * scale
    groove = cover(np.abs(r - SEAL * scale) - (SEAL_HALF + 1.5) * scale, 2)
    across = np.clip((r - SEAL * scale) / (SEAL_HALF * scale), -1, 1)
    ring = np.sqrt(1 - across * across) * SEAL_HALF * scale
    height = edge + hub + mouth - groove * 4 * scale + ring
    for at in SCREWS:
        d = np.hypot(y - at[0] * scale, x - at[1] * scale)
        height -= np.clip((SINK * scale - d) / (2.5 * scale), 0, 1) * 4 * scale
    return blur(height, 0.6)


def _albedo(r: Field, scale: float) -> Colours:
    """Steel with a seal in its groove."""
    colour = np.empty((*r.shape, 3), np.float32)
    colour[:] = STEEL
    groove = cover(np.abs(r - SEAL * scale) - (SEAL_HALF + 1.5) * scale)[..., None]
    seal = cover(np.abs(r - SEAL * scale) - SEAL_HALF * scale)[..., None]
    colour = colour * (1 - 0.55 * groove)
    return field(colour * (1 - seal) + np.array(SEAL_COLOUR, np.float32) * seal)


def _sheen(y: Field, x: Field) -> Field:
    """Turned metal reflects along its radius: two soft fans of light, as on a record."""
    angle = np.arctan2(y, x)
    light = float(np.arctan2(LIGHT[1], LIGHT[0]))
    key = np.abs(np.cos(angle - light)) ** 10
    fill = np.abs(np.cos(angle - light - 1.25)) ** 22
    return field(0.8 + 0.42 * key + 0.2 * fill)


def _engrave(bgr: Pixels, scale: float) -> None:
    """The type mark, milled into the face."""
    fine = 4
    high, wide = int(60 * scale) * fine, int(170 * scale) * fine
    plate = np.zeros((high, wide), np.uint8)
    size, weight = 0.92 * scale * fine, max(1, round(3.4 * scale * fine))
    for text, row in (("EAD-196", 0.44), ("1.4301", 0.86)):
        (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, weight)
        at = ((wide - width) // 2, int(high * row))
        cv2.putText(plate, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, 255, weight, cv2.LINE_AA)
    depth = cv2.resize(plate, (wide // fine, high // fine), interpolation=cv2.INTER_AREA) / 255
    side = bgr.shape[0]
    top = int(side // 2 + ENGRAVING[0] * scale - depth.shape[0] / 2)
    left = side // 2 - depth.shape[1] // 2
    window = bgr[top : top + depth.shape[0], left : left + depth.shape[1]]
    emboss(window, blur(depth, 0.6 * scale), slope=1.3, dark=0.36)


def _drill(bgr: Pixels, y: Field, x: Field, radius: float) -> None:
    """A dark hole with light on its far wall and a bright edge, in place."""
    r = np.hypot(y, x)
    towards = -(y * LIGHT[1] + x * LIGHT[0]) / max(radius, 1.0)
    inside = 16 + 70 * np.clip(towards, 0, 1) ** 2 * np.clip(r / radius, 0, 1) ** 3
    edge = cover(np.abs(r - radius - 0.08 * radius) - 0.09 * radius, 1.5)
    blend(bgr, (225, 224, 220), edge * np.clip(0.35 - 0.35 * towards, 0, 0.8))
    colour = np.repeat(inside[..., None], 3, 2).astype(np.float32)
    blend(bgr, colour, cover(r - radius))


def _wall(bgr: Pixels, y: Field, x: Field, r: Field, scale: float) -> Pixels:
    """The inside wall of the bore, lit on the side away from the light."""
    towards = -(y * LIGHT[1] + x * LIGHT[0]) / (BORE * scale)
    band = np.clip(1 - (BORE * scale - r) / (9 * scale), 0, 1) * cover(r - BORE * scale)
    glow = band * np.clip(0.25 + 0.75 * towards, 0, 1)
    wall = field(glow[..., None] * np.array([112, 110, 106]))
    return np.asarray(np.clip(bgr + wall, 0, 255), np.uint8)


def _veil(y: Field, x: Field, r: Field, solid: Field, scale: float) -> Pixels:
    """Where the belt shows: all around, in the part's soft shadow, and through the bore."""
    fall = 9 * scale
    away = np.hypot(y + LIGHT[1] * fall, x + LIGHT[0] * fall)
    cast = blur(cover(away - RIM * scale), 5 * scale)
    contact = blur(cover(r - RIM * scale), 2 * scale)
    open_air = (1 - 0.72 * cast) * (1 - 0.45 * contact)
    floor = np.hypot(y + 1.6 * LIGHT[1] * fall, x + 1.6 * LIGHT[0] * fall) - 40 * scale
    through = 0.75 * blur(cover(floor), 4 * scale)
    veil = np.where(r < (BORE + 4) * scale, through, open_air) * (1 - solid)
    return np.clip(255 * veil, 0, 255).astype(np.uint8)


def draw_hole(scale: float) -> Sprite:
    """A drilled dowel hole."""
    side = _odd(2.9 * DOWEL * scale)
    y, x = grid(side, side, side // 2, side // 2)
    bgr = np.full((side, side, 3), 170, np.uint8)
    _drill(bgr, y, x, DOWEL * scale)
    return Sprite(bgr, cover(np.hypot(y, x) - 1.17 * DOWEL * scale))


def draw_screw(scale: float, turn: float) -> Sprite:
    """A zinc-plated socket screw with its socket turned by ``turn`` sixths of a circle."""
    side = _odd(2.6 * SINK * scale)
    y, x = grid(side, side, side // 2, side // 2)
    r = np.hypot(y, x)
    socket = hexagon(y, x, 8.5 * scale, turn * np.pi / 3)
    height = np.clip((SCREW * scale - r) / (3.5 * scale), 0, 1) * 4 * scale
    height -= np.clip(0.5 - socket / (1.5 * scale), 0, 1) * 6 * scale
    albedo = np.empty((side, side, 3), np.float32)
    albedo[:] = ZINC
    albedo *= (1 - 0.68 * cover(socket))[..., None]
    bgr = shade(blur(height, 0.6), albedo, gloss=0.5, shine=18)
    fan = np.abs(np.cos(np.arctan2(y, x) - np.arctan2(LIGHT[1], LIGHT[0]))) ** 6
    bgr *= (0.88 + 0.2 * fan * cover(-socket))[..., None]
    away = np.hypot(y + LIGHT[1] * 4 * scale, x + LIGHT[0] * 4 * scale)
    shadow = 0.6 * blur(cover(away - SCREW * scale), 2 * scale)
    solid = cover(r - SCREW * scale)
    alpha = np.maximum(solid, shadow * cover(r - SINK * scale))
    bgr *= (solid / np.maximum(alpha, 1e-3))[..., None]
    return Sprite(np.clip(bgr, 0, 255).astype(np.uint8), alpha)


def draw_label(scale: float) -> Sprite:
    """A paper label with a bar code and room for the serial number above it."""
    side = _odd(2.3 * LABEL_HALF[1] * scale)
    y, x = grid(side, side, side // 2, side // 2)
    half_height, half_width = (n * scale for n in LABEL_HALF)
    bgr = np.empty((side, side, 3), np.uint8)
    bgr[:] = np.array(PAPER, np.uint8)
    stripe = cover(box(y + half_height - 4 * scale, x, 4 * scale, half_width, 0))
    blend(bgr, (150, 92, 30), stripe)
    bars = np.random.default_rng(196).random(64) < 0.5
    lines = bars[np.clip((x / (1.5 * scale) + 32).astype(int), 0, 63)].astype(np.float32)
    code = cover(box(y - 12 * scale, x, 8 * scale, 46 * scale, 0))
    blend(bgr, INK, lines * code)
    paper = cover(box(y, x, half_height, half_width, 4 * scale))
    away = box(y + LIGHT[1] * 2.5 * scale, x + LIGHT[0] * 2.5 * scale, half_height, half_width, 4)
    shadow = 0.45 * blur(cover(away), 1.2 * scale)
    alpha = np.maximum(paper, shadow)
    shown = bgr * (paper / np.maximum(alpha, 1e-3))[..., None]
    return Sprite(shown.astype(np.uint8), alpha)


def draw_digits(scale: float) -> list[Pixels]:
    """The ten digits as printed on the label, each of the same size."""
    fine = 4
    high, wide = max(2, round(17 * scale)), max(2, round(14 * scale))
    digits = []
    for digit in "0123456789":
        cell = np.empty((high * fine, wide * fine, 3), np.uint8)
        cell[:] = np.array(PAPER, np.uint8)
        size, weight = 0.52 * scale * fine, max(1, round(2 * scale * fine))
        at = (int(1.5 * scale * fine), int(14 * scale * fine))
        cv2.putText(cell, digit, at, cv2.FONT_HERSHEY_SIMPLEX, size, INK, weight, cv2.LINE_AA)
        small = cv2.resize(cell, (wide, high), interpolation=cv2.INTER_AREA)
        digits.append(np.asarray(small, np.uint8))
    return digits


def draw_grain(scale: float, rng: np.random.Generator) -> Pixels:
    """A sheet of turning marks unrolled: rows are radii, columns angles; 128 is no change.

    It holds the full circle twice, so that a part may begin at any angle.
    """
    rows, turn = grain_size(scale)
    high = rows + GRAIN_ROOM
    marks = noise(rng, high, turn, 1.0, stretch=24)
    bands = noise(rng, high, 8, 7 * scale)[:, :1]
    sheet = np.clip(128 * (1 + 0.05 * marks + 0.022 * bands), 0, 255).astype(np.uint8)
    return np.concatenate([sheet, sheet, sheet[:, :8]], 1)


GRAIN_ROOM = 256
"""Rows of the sheet to choose from beyond those that a part needs."""


def grain_size(scale: float) -> tuple[int, int]:
    """Rows of the sheet that one part uses, and columns of a full circle."""
    return int(RIM * scale) + 4, int(2 * np.pi * CIRCLE * scale) + 4


def draw_grain_map(scale: float) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
    """For ``cv2.remap``: where on the sheet each pixel of the canvas finds its turning marks."""
    side = canvas_side(scale)
    y, x = grid(side, side, side // 2, side // 2)
    r = np.hypot(y, x)
    turned = (np.abs(r - 143 * scale) < 47 * scale) | (np.abs(r - 57 * scale) < 12 * scale)
    radius = np.where(turned, r, -8).astype(np.float32)
    angle = (np.arctan2(y, x) / (2 * np.pi) + 0.5) * grain_size(scale)[1]
    first, second = cv2.convertMaps(angle.astype(np.float32), radius, cv2.CV_16SC2)
    return np.asarray(first), np.asarray(second)


def _odd(size: float) -> int:
    """The next odd whole number, at least 3."""
    return max(3, 2 * int(np.ceil(size / 2)) + 1)
