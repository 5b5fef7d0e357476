"""Defects: damage to a finished part, and mistakes in putting it together.

Each takes its severity, place and shape from the generator that it is given. Nothing here marks
where the defect is: the truth is what changed (``line.py``), so it cannot disagree with the frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from efficientad_stream.sources.rendering import layers
from efficientad_stream.sources.rendering.flange import Build, Point
from efficientad_stream.sources.rendering.layers import Canvas
from efficientad_stream.sources.rendering.relief import (
    Field,
    blend,
    blur,
    cover,
    emboss,
    field,
    grid,
    noise,
)

Generator = np.random.Generator


def scratch(canvas: Canvas, scale: float, rng: Generator) -> None:
    """A curved gouge across the face, thrown-up burr on one side."""
    length, width = rng.uniform(55, 140) * scale, rng.uniform(2.2, 4.5) * scale
    y, x = _scaled(_free_spot(rng, 18), scale)
    along = rng.uniform(0, np.pi)
    bend = rng.uniform(-0.25, 0.25)
    t = np.linspace(-0.5, 0.5, 40)
    ys = y + length * (t * np.sin(along) + bend * (t * t - 0.1) * np.cos(along))
    xs = x + length * (t * np.cos(along) - bend * (t * t - 0.1) * np.sin(along))
    depth = _stroke(canvas, [np.stack([ys, xs], 1)], width)
    emboss(canvas.bgr, blur(depth, 0.28 * width), slope=rng.uniform(2.2, 3.4), dark=0.42)


def dent(canvas: Canvas, scale: float, rng: Generator) -> None:
    """A blow or a blowhole: a pit with an uneven wall."""
    radius = rng.uniform(8, 18) * scale
    spot = _scaled(_free_spot(rng, radius / scale + 3), scale)
    distance = _blob(canvas, spot, radius, 0.16, rng)
    pit = np.clip(-distance / (0.55 * radius), 0, 1)
    depth = blur(np.sqrt(pit).astype(np.float32), 0.09 * radius)
    emboss(canvas.bgr, depth, slope=0.4 * radius, dark=rng.uniform(0.3, 0.6))


def stain(canvas: Canvas, scale: float, rng: Generator) -> None:
    """A drop of old oil or rust, thin in the middle and dark at its edge."""
    radius = rng.uniform(16, 34) * scale
    distance = _blob(canvas, _scaled(_free_spot(rng, 12), scale), radius, 0.22, rng)
    body = cover(distance, 5 * scale)
    edge = body * np.clip(1 + distance / (6 * scale), 0, 1)
    alpha = rng.uniform(0.35, 0.65) * (0.75 * body + 0.25 * edge)
    colour = (30.0, 62.0, 104.0) if rng.random() < 0.5 else (26.0, 46.0, 62.0)
    blend(canvas.bgr, colour, (alpha * _solid(canvas)).astype(np.float32))


def chip(canvas: Canvas, scale: float, rng: Generator) -> None:
    """A piece broken out of the rim, its fracture bright and uneven."""
    size = rng.uniform(12, 26) * scale
    angle = rng.uniform(0, 2 * np.pi)
    at = (layers.RIM * np.sin(angle), layers.RIM * np.cos(angle))
    distance = _blob(canvas, _scaled(at, scale), size, 0.15, rng)
    fracture = cover(distance - 4 * scale, 2 * scale) * _solid(canvas)
    side = canvas.bgr.shape[0]
    grains = noise(rng, side, side, 2 * scale)
    bright = np.repeat((150 + 34 * grains)[..., None], 3, 2)
    blend(canvas.bgr, np.clip(bright, 60, 230).astype(np.float32), fracture)
    gone = cover(distance)
    canvas.bgr[:] = (canvas.bgr * (1 - gone)[..., None]).astype(np.uint8)
    floor = 130 * cover(distance + 3 * scale, 4 * scale)
    canvas.veil[:] = np.maximum(canvas.veil, floor.astype(np.uint8))


def crack(canvas: Canvas, scale: float, rng: Generator) -> None:
    """A dark branching line that runs inwards from the rim."""
    angle = np.pi / 2 + rng.uniform(0.6, 2 * np.pi - 0.6)  # not under the label
    start = np.array([np.sin(angle), np.cos(angle)]) * (layers.RIM - 6) * scale
    trunk = _walk(start, angle + np.pi, int(rng.integers(9, 17)), scale, rng)
    lines = [trunk]
    for _ in range(int(rng.integers(1, 3))):
        fork = int(rng.integers(2, len(trunk) - 2))
        turn = angle + np.pi + rng.choice([-0.8, 0.8])
        lines.append(_walk(trunk[fork], turn, int(rng.integers(3, 6)), scale, rng))
    width = rng.uniform(1.6, 3.0) * scale
    depth = blur(_stroke(canvas, lines, width), 0.45 * scale)
    emboss(canvas.bgr, depth, slope=0.9, dark=rng.uniform(0.7, 0.88))


def missing_screw(build: Build, rng: Generator) -> Build:
    """One of the screws was not put in."""
    lost = int(rng.integers(len(build.screws)))
    return replace(
        build, screws=tuple(None if k == lost else turn for k, turn in enumerate(build.screws))
    )


def missing_hole(build: Build, rng: Generator) -> Build:
    """One of the dowel holes was not drilled."""
    lost = int(rng.integers(len(build.holes)))
    return replace(build, holes=build.holes[:lost] + build.holes[lost + 1 :])


def extra_hole(build: Build, rng: Generator) -> Build:
    """A hole where none belongs."""
    return replace(build, holes=(*build.holes, _free_spot(rng, layers.DOWEL + 4)))


def shifted_label(build: Build, rng: Generator) -> Build:
    """The label sits beside its place, or too far in or out."""
    side = rng.choice([-1, 1]) * rng.uniform(18, 44)
    return replace(build, label=(rng.uniform(-22, 14), float(side), build.label[2]))


def turned_label(build: Build, rng: Generator) -> Build:
    """The label is in its place, but askew or upside down."""
    turn = 180.0 if rng.random() < 0.25 else float(rng.choice([-1, 1]) * rng.uniform(12, 50))
    return replace(build, label=(*build.label[:2], turn))


STRUCTURAL: dict[str, Callable[[Canvas, float, Generator], None]] = {
    f.__name__: f for f in (scratch, dent, stain, chip, crack)
}
"""Damage to the finished part, done in place at a scale."""
LOGICAL: dict[str, Callable[[Build, Generator], Build]] = {
    f.__name__: f for f in (missing_screw, missing_hole, extra_hole, shifted_label, turned_label)
}
"""Mistakes in putting the part together; each piece looks right by itself."""
DEFECTS = (*STRUCTURAL, *LOGICAL)


def _free_spot(rng: Generator, clearance: float) -> Point:
    """A point of the face at least ``clearance`` away from screws, holes, seal and label."""
    taken = [(at, layers.SINK) for at in layers.SCREWS]
    taken += [(at, layers.DOWEL) for at in layers.DOWELS]
    taken += [((layers.LABEL[0], dx), layers.LABEL_HALF[0]) for dx in (-34.0, 0.0, 34.0)]
    spot = (0.0, 0.0)
    for _ in range(100):
        radius, angle = rng.uniform(98 + clearance, 186 - clearance), rng.uniform(0, 2 * np.pi)
        spot = (float(radius * np.sin(angle)), float(radius * np.cos(angle)))
        if all(np.hypot(spot[0] - y, spot[1] - x) > r + clearance for (y, x), r in taken):
            return spot
    return spot


def _scaled(point: Point, scale: float) -> Point:
    """``point`` in pixels of the canvas, from its centre."""
    return point[0] * scale, point[1] * scale


def _solid(canvas: Canvas) -> Field:
    """Where there is part and not belt, 0 to 1."""
    return field(canvas.bgr.max(2) > 0)


def _blob(canvas: Canvas, centre: Point, radius: float, rough: float, rng: Generator) -> Field:
    """Distance to a round shape with an uneven outline and any stretch; all in pixels."""
    side = canvas.bgr.shape[0]
    y, x = grid(side, side, side // 2 + centre[0], side // 2 + centre[1])
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(0.75, 1.3)
    along = (x * np.cos(turn) + y * np.sin(turn)) * stretch
    across = (y * np.cos(turn) - x * np.sin(turn)) / stretch
    uneven = rough * radius * noise(rng, side, side, 0.45 * radius)
    return field(np.hypot(along, across) - radius + uneven)


def _stroke(canvas: Canvas, lines: list[np.typing.NDArray[np.float64]], width: float) -> Field:
    """Polylines (y, x from the part's centre) as coverage, tapering at both ends."""
    side, fine = canvas.bgr.shape[0], 16
    ink = np.zeros((side, side), np.uint8)
    for line in lines:
        points = ((line[:, ::-1] + side // 2) * fine).round().astype(np.int32)
        for k in range(len(points) - 1):
            taper = min(1.0, 0.35 + 4 * min(k + 1, len(points) - 1 - k) / len(points))
            thick = max(1, round(width * taper))
            start, end = points[k].tolist(), points[k + 1].tolist()
            cv2.line(ink, start, end, 255, thick, cv2.LINE_AA, shift=4)
    return field(ink / 255 * _solid(canvas))


def _walk(
    start: np.typing.NDArray[np.float64], heading: float, steps: int, scale: float, rng: Generator
) -> np.typing.NDArray[np.float64]:
    """A jagged way from ``start``, points (y, x)."""
    turns = heading + np.cumsum(rng.normal(0, 0.28, steps)) + rng.normal(0, 0.35, steps)
    strides = rng.uniform(4, 9, steps)[:, None] * scale
    moves = np.stack([np.sin(turns), np.cos(turns)], 1) * strides
    return np.asarray(np.concatenate([start[None], start + np.cumsum(moves, 0)]))
