"""The part: a turned steel flange, put together from its layers."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from efficientad_stream.sources.rendering import layers
from efficientad_stream.sources.rendering.layers import Canvas, Sprite
from efficientad_stream.sources.rendering.relief import Pixels

SCREW_TURNS = 10
"""How many drawn positions of a screw's socket there are."""

Point = tuple[float, float]
"""y and x relative to the part's centre, in pixels of a frame of 640 x 480."""


@dataclass(frozen=True)
class Build:
    """What one part is put together from.

    Attributes:
        grain: where in the sheet of turning marks this part's begin (radius, angle).
        screws: drawn position of each screw, or None where it is missing.
        holes: centres of the dowel holes.
        label: offset of the label (y, x) and its turn in degrees.
        serial: number printed on the label.
    """

    grain: tuple[int, int]
    screws: tuple[int | None, ...]
    holes: tuple[Point, ...]
    label: tuple[float, float, float]
    serial: int


class Flange:
    """Draws the layers once and builds parts of them.

    Args:
        scale: size of the scene, 1 for 640 x 480.
        rng: decides the turning marks.
    """

    def __init__(self, scale: float, rng: np.random.Generator) -> None:
        self.scale = scale
        self.side = layers.canvas_side(scale)
        self._bare = layers.draw_bare(scale)
        self._screws = [layers.draw_screw(scale, k / SCREW_TURNS) for k in range(SCREW_TURNS)]
        self._hole = layers.draw_hole(scale)
        self._label = layers.draw_label(scale)
        self._digits = layers.draw_digits(scale)
        self._sheet = layers.draw_grain(scale, rng)
        self._map = layers.draw_grain_map(scale)
        self.grain_room = (layers.GRAIN_ROOM, layers.grain_size(scale)[1])

    def build(self, build: Build) -> Canvas:
        """One part on a canvas of its own."""
        canvas = Canvas(self._turn(build.grain), self._bare.veil.copy())
        for at in build.holes:
            self._paste(canvas, self._hole, at)
        for at, turn in zip(layers.SCREWS, build.screws, strict=True):
            if turn is not None:
                self._paste(canvas, self._screws[turn], at)
        self._stick(canvas, build.label, build.serial)
        return canvas

    def _turn(self, grain: tuple[int, int]) -> Pixels:
        """The bare part with its own turning marks."""
        rows, cols = layers.grain_size(self.scale)
        sheet = self._sheet[grain[0] : grain[0] + rows, grain[1] : grain[1] + cols + 4]
        marks = cv2.remap(sheet, *self._map, cv2.INTER_LINEAR, borderValue=128)
        marks = cv2.cvtColor(marks, cv2.COLOR_GRAY2BGR)
        return np.asarray(cv2.multiply(self._bare.bgr, marks, scale=1 / 128), np.uint8)

    def _paste(self, canvas: Canvas, sprite: Sprite, at: Point) -> None:
        """Lay ``sprite`` on the part, its centre at ``at``."""
        rows, cols = self._window(at, sprite.alpha.shape[0])
        under = canvas.bgr[rows, cols]
        under[:] = cv2.blendLinear(sprite.bgr, under, sprite.alpha, 1 - sprite.alpha)

    def _window(self, at: Point, side: int) -> tuple[slice, slice]:
        """Rows and columns of a square of ``side`` pixels around ``at``, kept on the canvas."""
        corner = (round(self.side // 2 + a * self.scale) - side // 2 for a in at)
        y, x = (max(0, min(c, self.side - side)) for c in corner)
        return slice(y, y + side), slice(x, x + side)

    def _stick(self, canvas: Canvas, pose: tuple[float, float, float], serial: int) -> None:
        """Print the serial on a label and stick it on, to a fraction of a pixel."""
        bgr = self._label.bgr.copy()
        self._print(bgr, f"{serial % 1_000_000:06d}")
        side = bgr.shape[0]
        turn = cv2.getRotationMatrix2D((side // 2, side // 2), pose[2], 1.0)
        y, x = (offset * self.scale for offset in pose[:2])
        turn[0, 2] += x - round(x)
        turn[1, 2] += y - round(y)
        bgr = np.asarray(cv2.warpAffine(bgr, turn, (side, side)), np.uint8)
        alpha = cv2.warpAffine(self._label.alpha, turn, (side, side)).astype(np.float32)
        at = (layers.LABEL[0] + round(y) / self.scale, layers.LABEL[1] + round(x) / self.scale)
        self._paste(canvas, Sprite(bgr, alpha), at)

    def _print(self, bgr: Pixels, text: str) -> None:
        high, wide = self._digits[0].shape[:2]
        top = bgr.shape[0] // 2 - round(15 * self.scale)
        left = bgr.shape[1] // 2 - round(46 * self.scale)
        for place, digit in enumerate(text):
            x = left + place * wide
            bgr[top : top + high, x : x + wide] = self._digits[int(digit)]
