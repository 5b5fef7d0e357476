"""A tray of 16 pockets in which some parts must lie: the scene of ``make_logical_dataset``.

Every pocket looks the same, and is empty in some place of a good tray; every kind of part lies in
some pocket of it. So a small window, which does not see where in the tray it is, finds nothing new
in a tray whose parts are missing, too many, or in the wrong pockets.

Lengths are in units of 1/256 of the image's side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Field: TypeAlias = NDArray[np.float32]
Place: TypeAlias = tuple[int, str]
"""A pocket, and a kind of part that lies in it, or would."""
EMPTY = "."
LAYOUT = "RR.N" + ".CC." + "P..P" + "N.RC"
"""What must lie in each pocket, row by row. R: button, N: nut, C: chip; P: both G (green cap) or
both B (blue cap)."""
SIDE = 4
PITCH, POCKET = 56.0, 21.0
"""From pocket to pocket, and half the width of one: no window of 33 units shows two parts."""
REACH = 24.0
"""A part and its jitter lie within this of the pocket's centre."""
PAIR = [index for index, kind in enumerate(LAYOUT) if kind == "P"]
SUPERSAMPLED = 2
LIGHT = (-0.45, -0.6)
"""Slope towards the lamp, to the right and down: it stands at the upper left."""


class Part(NamedTuple):
    """How a kind of part looks.

    Attributes:
        colour: of its top, blue, green, red from 0 to 1.
        distance: signed distance to its outline, negative inside; holes are outside.
        height: of its top above the tray.
        bevel: width of its rounded edge.
        gloss: strength of the highlights.
    """

    colour: tuple[float, float, float]
    distance: Callable[[Field, Field], Field]
    height: float
    bevel: float
    gloss: float


def as_field(array: object) -> Field:
    """Single precision is enough, and what OpenCV likes best."""
    return np.asarray(array, np.float32)


def _disc(x: Field, y: Field, radius: float) -> Field:
    return as_field(np.hypot(x, y) - radius)


def _button(x: Field, y: Field) -> Field:
    holes = np.minimum(_disc(abs(x) - 4, y, 2.2), _disc(x, abs(y) - 4, 2.2))
    return as_field(np.maximum(_disc(x, y, 15.5), -holes))


def _nut(x: Field, y: Field) -> Field:
    slanted = math.sqrt(0.75) * abs(x) + abs(y) / 2
    return as_field(np.maximum(np.maximum(slanted, abs(y)) - 14.5, -_disc(x, y, 7)))


def _chip(x: Field, y: Field) -> Field:
    long, short = np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
    pins = np.maximum(np.maximum(long - 15, short - 9), abs((short + 2) % 4 - 2) - 1)
    return as_field(np.minimum(long - 11.5, pins))


def _cap(x: Field, y: Field) -> Field:
    groove = abs(_disc(x, y, 9.5)) - 1.2
    return as_field(np.maximum(_disc(x, y, 14.5), -groove))


PARTS = {
    "R": Part((0.22, 0.20, 0.72), _button, 6, 4, 0.35),
    "N": Part((0.38, 0.62, 0.76), _nut, 5, 2, 0.6),
    "C": Part((0.20, 0.19, 0.19), _chip, 3.5, 1.5, 0.25),
    "G": Part((0.36, 0.58, 0.24), _cap, 6, 3, 0.4),
    "B": Part((0.68, 0.42, 0.22), _cap, 6, 3, 0.4),
}


class Picture(NamedTuple):
    """A rendered tray.

    Attributes:
        image: size x size x 3 BGR, uint8.
        footprints: size x size, bool, by (pocket, kind): where a part of the kind lies or would.
    """

    image: NDArray[np.uint8]
    footprints: dict[Place, NDArray[np.bool_]]


class Surface(NamedTuple):
    """What the light falls on: height and gloss, h x w, and colour, h x w x 3; float32."""

    height: Field
    colour: Field
    gloss: Field


class Shake(NamedTuple):
    """How one part lies: its offset, its angle in radians, and the tone of its colour."""

    x: np.float32
    y: np.float32
    angle: float
    tone: np.float32

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Shake:
        """The natural variation."""
        x, y = rng.uniform(-1.2, 1.2, 2).astype(np.float32)
        return cls(x, y, float(rng.uniform(-0.12, 0.12)), np.float32(rng.uniform(0.95, 1.05)))


class Renderer:
    """Draws trays at one size."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._scale = np.float32(SUPERSAMPLED * size / 256)
        self._wide = SUPERSAMPLED * size
        y, x = np.mgrid[: self._wide, : self._wide].astype(np.float32) + np.float32(0.5)
        self._x, self._y = x / self._scale, y / self._scale
        self._tray = self._empty_tray()

    def render(self, kinds: str, rng: np.random.Generator, also: Sequence[Place] = ()) -> Picture:
        """A tray.

        Args:
            kinds: what lies in each pocket.
            rng: of the natural variation: place, angle and tone of each part, light and noise.
            also: of which (pocket, kind) the footprint is wanted as well, as if it lay there.
        """
        grain = self._grain(rng)
        plastic = np.array([0.60, 0.62, 0.62], np.float32) * np.float32(rng.uniform(0.97, 1.03))
        colour = (1 + np.float32(0.03) * grain)[..., None] * plastic
        surface = Surface(self._tray.copy(), colour, np.full_like(grain, 0.1))
        move = self._movement(rng)
        shakes = [Shake.draw(rng) for _ in kinds]
        for pocket, kind in enumerate(kinds):
            if kind != EMPTY:
                self._lay(surface, pocket, PARTS[kind], shakes[pocket])
        wanted = {(p, k) for p, k in enumerate(kinds) if k != EMPTY} | set(also)
        footprints = {(p, k): self._footprint(p, k, shakes[p], move) for p, k in sorted(wanted)}
        surface = surface._replace(height=self._scale * (surface.height + np.float32(0.03) * grain))
        lit = shade(surface, float(self._scale))
        return Picture(self._expose(self._moved(lit, move), rng), footprints)

    def _empty_tray(self) -> Field:
        """Height of the tray without parts: a plate with recesses."""
        height = np.zeros_like(self._x)
        for pocket in range(len(LAYOUT)):
            cx, cy = centre(pocket)
            x, y = abs(self._x - cx) - POCKET + 4, abs(self._y - cy) - POCKET + 4
            outside = np.hypot(np.maximum(x, 0), np.maximum(y, 0)) - 4
            height -= 4 * np.clip(-outside / 3, 0, 1)
        return as_field(height)

    def _lay(self, surface: Surface, pocket: int, part: Part, shake: Shake) -> None:
        """Put a part into a pocket, in place."""
        height, albedo, gloss = surface
        box = self._box(pocket)
        distance = self._distance(box, pocket, part, shake)
        inside = np.clip(0.5 - distance * self._scale, 0, 1)
        edge = np.clip(1 + distance / part.bevel, 0, 1)
        top = part.height - 4 + part.bevel * (np.sqrt(1 - edge * edge * 0.96) - 1)
        height[box] += inside * (top - height[box])
        colour = np.array(part.colour, np.float32) * shake.tone
        albedo[box] += inside[..., None] * (colour - albedo[box])
        gloss[box] += inside * (np.float32(part.gloss) - gloss[box])

    def _box(self, pocket: int) -> tuple[slice, slice]:
        """Where a pocket is."""
        cx, cy = centre(pocket)
        side = int(2 * REACH * self._scale)
        x, y = int((cx - REACH) * self._scale), int((cy - REACH) * self._scale)
        return slice(y, y + side), slice(x, x + side)

    def _distance(self, box: tuple[slice, slice], pocket: int, part: Part, shake: Shake) -> Field:
        cx, cy = centre(pocket)
        x, y = self._x[box] - cx - shake.x, self._y[box] - cy - shake.y
        cos, sin = np.float32(math.cos(shake.angle)), np.float32(math.sin(shake.angle))
        return part.distance(cos * x + sin * y, cos * y - sin * x)

    def _footprint(self, pocket: int, kind: str, shake: Shake, move: Field) -> NDArray[np.bool_]:
        """All inside of a part's outline, holes included."""
        box = self._box(pocket)
        whole = np.zeros_like(self._x)
        whole[box] = self._distance(box, pocket, PARTS[kind], shake) < 0
        visible = (self._moved(whole, move) >= 0.5).astype(np.uint8)
        outer, _ = cv2.findContours(visible, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        return cv2.drawContours(visible, outer, -1, 1, cv2.FILLED).astype(bool)

    def _grain(self, rng: np.random.Generator) -> Field:
        """The structure of the plastic, of unit variance."""
        white = rng.standard_normal((self.size, self.size), np.float32)
        coarse = cv2.GaussianBlur(white, (0, 0), 0.7 * self.size / 256)
        wide = cv2.resize(coarse, (self._wide, self._wide), interpolation=cv2.INTER_LINEAR)
        return as_field(wide / wide.std())

    def _movement(self, rng: np.random.Generator) -> Field:
        """How the tray lies under the camera: up to 1.5 units and 0.6 degrees off."""
        half = self._wide / 2
        turn = cv2.getRotationMatrix2D((half, half), float(rng.uniform(-0.6, 0.6)), 1.0)
        shift = rng.uniform(-1.5, 1.5, 2) * float(self._scale)
        return as_field(turn + np.array([[0, 0, shift[0]], [0, 0, shift[1]]]))

    def _moved(self, field: Field, move: Field) -> Field:
        """At the image's size."""
        wide = (self._wide, self._wide)
        moved = cv2.warpAffine(field, move, wide, borderMode=cv2.BORDER_REPLICATE)
        small = cv2.resize(moved, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return as_field(small)

    def _expose(self, lit: Field, rng: np.random.Generator) -> NDArray[np.uint8]:
        """What the camera makes of it: uneven light, gain, gamma, and noise."""
        across, down = rng.uniform(-0.05, 0.05, 2).astype(np.float32)
        ramp = np.linspace(-1, 1, self.size, dtype=np.float32)
        uneven = 1 + across * ramp[None, :, None] + down * ramp[:, None, None]
        image = lit * uneven * np.float32(rng.uniform(0.94, 1.06))
        image = 255 * np.clip(image, 0, 1) ** np.float32(1 / 1.6)
        noise = rng.standard_normal(image.shape, np.float32) * np.float32(1.5)
        return np.asarray(np.clip(np.rint(image + noise), 0, 255), np.uint8)


def centre(pocket: int) -> tuple[np.float32, np.float32]:
    """Of a pocket: to the right and down."""
    row, column = divmod(pocket, SIDE)
    first = 128 - PITCH * (SIDE - 1) / 2
    return np.float32(first + column * PITCH), np.float32(first + row * PITCH)


def shade(surface: Surface, scale: float) -> Field:
    """Light on it (all lengths in pixels, ``scale`` to a unit): diffuse, glossy, soft shadows."""
    height, albedo, gloss = surface
    smooth = as_field(cv2.GaussianBlur(height, (0, 0), 0.5 * scale))
    slope_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3) / 8
    slope_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3) / 8
    norm = np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    towards = (1 - LIGHT[0] * slope_x - LIGHT[1] * slope_y) / norm
    diffuse = np.clip(towards / math.sqrt(1 + LIGHT[0] ** 2 + LIGHT[1] ** 2), 0, 1)
    shine = gloss * np.clip(2 * diffuse / norm - 0.75, 0, None) ** 6
    shadow = np.float32(0.55) + np.float32(0.45) * shadows(smooth, scale)
    lit = albedo * (np.float32(0.25) + np.float32(0.85) * diffuse * shadow)[..., None]
    return as_field(lit + np.float32(0.5) * shine[..., None])


def shadows(height: Field, scale: float) -> Field:
    """1 in the light, towards 0 where something stands between a place and the lamp."""
    deepest = np.zeros_like(height)
    size = (height.shape[1], height.shape[0])
    for distance in (2.0, 4.0, 6.0):
        step = [-LIGHT[0] * distance * scale, -LIGHT[1] * distance * scale]
        move = np.array([[1, 0, step[0]], [0, 1, step[1]]], np.float32)
        nearer = cv2.warpAffine(height, move, size, borderMode=cv2.BORDER_REPLICATE)
        deepest = np.maximum(deepest, nearer - height - np.float32(0.5 * distance * scale))
    blocked = cv2.GaussianBlur(deepest / np.float32(3 * scale), (0, 0), 1.2 * scale)
    return as_field(1 - np.clip(blocked, 0, 1))
