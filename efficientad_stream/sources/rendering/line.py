"""The line: part after part on a belt, as the camera sees it, with the truth about each."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from efficientad_stream.config import SimulatedSource
from efficientad_stream.core.types import GOOD, PixelArray
from efficientad_stream.sources.rendering import layers
from efficientad_stream.sources.rendering.defects import DEFECTS, LOGICAL, STRUCTURAL
from efficientad_stream.sources.rendering.flange import SCREW_TURNS, Build, Flange
from efficientad_stream.sources.rendering.layers import Canvas
from efficientad_stream.sources.rendering.relief import Pixels, blur, grid, noise

SHIFT = 4.0
"""Largest shift of a part from its place, in pixels of a frame of 640 x 480."""
TURN = 2.0
"""Largest turn, degrees."""
GAIN = 0.04
"""Largest change of brightness."""
SENSOR_NOISE = 2.2
"""Deviation of the sensor's noise, grey levels."""
VISIBLE = 6
"""A pixel is defective if the defect changed it by at least so many grey levels."""
ROOM = 64
"""Positions to choose from, each way, on the sheets of noise and belt."""


@dataclass(frozen=True)
class Rendered:
    """One part: ``frame`` as the camera gives it, ``mask`` h x w uint8 (255 defective), truth."""

    frame: PixelArray
    mask: PixelArray
    truth: str


@dataclass(frozen=True)
class _Pose:
    """How a part lies on the belt and how it is lit."""

    shift: tuple[float, float]
    turn: float
    gain: float
    belt: tuple[int, int]
    noise: tuple[int, int]


class Line:
    """Renders part ``index`` of a seeded line; the same index is always the same picture.

    Args:
        settings: size, share of defects, seed and grey of the frames.
    """

    def __init__(self, settings: SimulatedSource) -> None:
        self.settings = settings
        self.height, self.width = settings.height, settings.width
        self.scale = min(self.width / 640, self.height / 480)
        self._flange = Flange(self.scale, self._rng(0, "flange"))
        self._belt = _draw_belt(self.height, self.width, self.scale, self._rng(0, "belt"))
        self._rail = _draw_rail(self.width, self.scale)
        self._light = _draw_light(self.height, self.width)
        sheet = (self.height + ROOM, self.width + ROOM, 3)
        grain = self._rng(0, "noise").standard_normal(sheet, dtype=np.float32)
        self._noise = np.clip(128 + SENSOR_NOISE * grain, 0, 255).astype(np.uint8)

    def truth(self, index: int) -> str:
        """What part ``index`` is: "good", or the name of the defect that part ``index`` has."""
        rng = self._rng(index, "truth")
        if rng.random() >= self.settings.defect_rate:
            return GOOD
        return str(rng.choice(DEFECTS))

    def render(self, index: int, truth: str | None = None) -> Rendered:
        """Part ``index`` with its mask.

        Args:
            index: which part, from 0.
            truth: "good" or a defect, to see the same part otherwise than the seed has it.
        """
        shape = (self.height, self.width) if self.settings.grey else (self.height, self.width, 3)
        frame = np.empty(shape, np.uint8)
        truth = truth or self.truth(index)
        canvas = self._make(index, truth)
        self._expose(index, canvas, frame)
        return Rendered(frame, self._mask(index, canvas, truth), truth)

    def render_into(self, index: int, frame: PixelArray) -> str:
        """Part ``index`` written in place into ``frame``; returns its truth."""
        truth = self.truth(index)
        self._expose(index, self._make(index, truth), frame)
        return truth

    def _rng(self, index: int, purpose: str) -> np.random.Generator:
        """A generator of its own for each part and purpose, so that none disturbs another."""
        purposes = ("flange", "belt", "noise", "truth", "build", "pose", "defect")
        return np.random.default_rng((self.settings.seed, index, purposes.index(purpose)))

    def _make(self, index: int, truth: str) -> Canvas:
        """The part as it was made, damage included."""
        rng = self._rng(index, "build")
        build = Build(
            grain=(
                int(rng.integers(self._flange.grain_room[0])),
                int(rng.integers(self._flange.grain_room[1])),
            ),
            screws=tuple(int(k) for k in rng.integers(SCREW_TURNS, size=len(layers.SCREWS))),
            holes=layers.DOWELS,
            label=(rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(-1, 1)),
            serial=index,
        )
        if truth in LOGICAL:
            build = LOGICAL[truth](build, self._rng(index, "defect"))
        canvas = self._flange.build(build)
        if truth in STRUCTURAL:
            STRUCTURAL[truth](canvas, self.scale, self._rng(index, "defect"))
        return canvas

    def _pose(self, index: int) -> _Pose:
        rng = self._rng(index, "pose")
        shift = rng.uniform(-SHIFT, SHIFT, 2) * self.scale
        return _Pose(
            shift=(float(shift[0]), float(shift[1])),
            turn=float(rng.uniform(-TURN, TURN)),
            gain=float(rng.uniform(1 - GAIN, 1 + GAIN)),
            belt=(int(rng.integers(ROOM)), int(rng.integers(self.width))),
            noise=(int(rng.integers(ROOM)), int(rng.integers(ROOM))),
        )

    def _placement(self, pose: _Pose) -> tuple[np.typing.NDArray[np.float64], slice, slice]:
        """Where the canvas goes: the map onto a window of the frame, and that window."""
        side = self._flange.side
        reach = side // 2 + int(np.ceil(SHIFT * self.scale)) + 1
        rows = slice(max(0, self.height // 2 - reach), min(self.height, self.height // 2 + reach))
        cols = slice(max(0, self.width // 2 - reach), min(self.width, self.width // 2 + reach))
        turn = cv2.getRotationMatrix2D((side // 2, side // 2), pose.turn, 1.0)
        turn[0, 2] += self.width / 2 - side // 2 + pose.shift[1] - cols.start
        turn[1, 2] += self.height / 2 - side // 2 + pose.shift[0] - rows.start
        return np.asarray(turn), rows, cols

    def _expose(self, index: int, canvas: Canvas, frame: PixelArray) -> None:
        """Lay the part on the belt, light it, and add the sensor's noise, into ``frame``."""
        pose = self._pose(index)
        colour = frame if frame.ndim == 3 else np.empty((*frame.shape, 3), np.uint8)
        top, left = pose.belt
        colour[:] = self._belt[top : top + self.height, left : left + self.width]
        rail = len(self._rail)
        colour[:rail], colour[-rail:] = self._rail, self._rail[::-1]
        turn, rows, cols = self._placement(pose)
        window = colour[rows, cols]
        size = (window.shape[1], window.shape[0])
        part = cv2.warpAffine(canvas.bgr, turn, size, flags=cv2.INTER_LINEAR)
        veil = cv2.warpAffine(canvas.veil, turn, size, flags=cv2.INTER_LINEAR, borderValue=255)
        seen = cv2.multiply(window, cv2.cvtColor(veil, cv2.COLOR_GRAY2BGR), scale=1 / 255)
        cv2.add(seen, part, window)
        cv2.multiply(colour, self._light, colour, pose.gain / 200)
        top, left = pose.noise
        grain = self._noise[top : top + self.height, left : left + self.width]
        cv2.addWeighted(colour, 1, grain, 1, -128, colour)
        if colour is not frame:
            cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY, frame)

    def _mask(self, index: int, canvas: Canvas, truth: str) -> PixelArray:
        """Where the part differs from the same part made well."""
        mask = np.zeros((self.height, self.width), np.uint8)
        if truth == GOOD:
            return mask
        good = self._make(index, GOOD)
        change = cv2.absdiff(canvas.bgr, good.bgr).max(2)
        change = np.maximum(change, cv2.absdiff(canvas.veil, good.veil) // 6)
        turn, rows, cols = self._placement(self._pose(index))
        window = mask[rows, cols]
        moved = cv2.warpAffine(change, turn, (window.shape[1], window.shape[0]))
        window[:] = _filled((moved >= VISIBLE).astype(np.uint8) * 255, self.scale)
        return mask


def _filled(mask: Pixels, scale: float) -> Pixels:
    """``mask`` without the gaps where a defect happens to look like the part."""
    gap = 2 * max(1, round(3 * scale)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap, gap))
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel)
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(closed, outlines, -1, 255, cv2.FILLED)
    return np.asarray(closed, np.uint8)


def _draw_belt(height: int, width: int, scale: float, rng: np.random.Generator) -> Pixels:
    """A dark woven belt, twice the frame's width and periodic, for the part to move along."""
    high = height + ROOM
    y, x = grid(high, width, 0, 0)
    pitch = max(3.0, 5 * scale)
    weave = np.sin(2 * np.pi * y / pitch) * np.sin(2 * np.pi * x / pitch)
    blotches = noise(rng, high, width, 40 * scale)
    dust = blur((rng.random((high, width)) < 4e-4).astype(np.float32), 0.7 * scale) * 60 * scale
    grey = (
        46 + 3.5 * weave + 2.5 * blotches + 2 * noise(rng, high, width, 1.5) + np.minimum(dust, 26)
    )
    colour = grey[..., None] * np.array([1.05, 1.0, 0.96], np.float32)
    tile = np.clip(colour, 0, 255).astype(np.uint8)
    return np.concatenate([tile, tile], 1)


def _draw_rail(width: int, scale: float) -> Pixels:
    """The upper guide rail and the shadow that it throws on the belt."""
    y, x = grid(max(2, int(26 * scale)), width, 0, 0)
    thick = 17 * scale
    metal = 118 + 46 * np.sin(np.pi * np.clip(y / thick, 0, 1)) ** 2 + 0 * x
    below = 20 + 24 * np.clip((y - thick) / (9 * scale), 0, 1)
    grey = np.where(y < thick, metal, below)
    return np.asarray(grey[..., None] * np.array([1.04, 1.0, 0.97]), np.uint8)


def _draw_light(height: int, width: int) -> Pixels:
    """Soft light from the upper left that falls off to the corners; 200 is full light."""
    y, x = grid(height, width, 0.38 * height, 0.4 * width)
    fall = np.clip(1.03 - 0.34 * ((y / height) ** 2 + (x / width) ** 2), 0, 1.2)
    return np.repeat((200 * fall).astype(np.uint8)[..., None], 3, 2)
