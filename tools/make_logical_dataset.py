"""Make a data set of logical anomalies in the layout of MVTec LOCO.

    python tools/make_logical_dataset.py OUT --good 300 --test 60

A tray has 16 pockets, and a rule says what lies in each (``logical_scene.LAYOUT``). In a logical
anomaly every part is whole and lies well in a pocket, but the rule is broken; in a structural one
the rule is kept, and something is scratched, chipped or stained. The same arguments always give the
same pictures.

Folders: train/good, validation/good, test/good, test/logical_anomalies, test/structural_anomalies,
and ground_truth/<kind>/<stem>/000.png, in which the value of a pixel says which defect it is of:
see defects_config.json.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from logical_scene import EMPTY, LAYOUT, PAIR, PARTS, Picture, Place, Renderer
from numpy.typing import NDArray

LOGICAL, STRUCTURAL = "logical_anomalies", "structural_anomalies"
T = TypeVar("T")


class Defect(NamedTuple):
    """A kind of defect, as defects_config.json describes it.

    Attributes:
        value: of its pixels in the ground truth.
        saturation: share of the marked area from which on it counts as found altogether. A half
            where two places are marked, either of which gives the defect away.
        make: draws one.
    """

    value: int
    saturation: float
    make: Callable[[Maker], Marked]


class Marked(NamedTuple):
    """A defective tray: size x size x 3 BGR, uint8, and size x size, bool: where the defect is."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]


class Maker:
    """Draws one picture; ``rng`` decides everything about it."""

    def __init__(self, renderer: Renderer, rng: np.random.Generator) -> None:
        self._renderer = renderer
        self.rng = rng
        self._seed = int(rng.integers(1 << 62))
        self.kinds = LAYOUT.replace("P", "GB"[rng.integers(2)])
        """What lies in the pockets, while the rule is kept."""

    def render(self, kinds: str, also: Sequence[Place] = ()) -> Picture:
        """A tray; what is not asked to differ does not differ from call to call."""
        return self._renderer.render(kinds, np.random.default_rng(self._seed), also)

    def broken(self, changes: dict[int, str]) -> Marked:
        """The tray with other parts in some pockets, these marked as they should be and are."""
        kinds = "".join(changes.get(pocket, kind) for pocket, kind in enumerate(self.kinds))
        marked = [(p, k) for p in changes for k in (self.kinds[p], kinds[p]) if k != EMPTY]
        picture = self.render(kinds, marked)
        return Marked(picture.image, np.any([picture.footprints[m] for m in marked], axis=0))

    def pocket(self, *, full: bool) -> int:
        """A pocket with, or without a part."""
        return self.one_of([p for p, k in enumerate(self.kinds) if (k != EMPTY) == full])

    def other(self, kind: str) -> str:
        """A kind of part that is not ``kind``."""
        return self.one_of([other for other in PARTS if other != kind])

    def one_of(self, choices: Sequence[T]) -> T:
        """Any of them."""
        return choices[int(self.rng.integers(len(choices)))]


def missing(maker: Maker) -> Marked:
    """A part is not there."""
    return maker.broken({maker.pocket(full=True): EMPTY})


def added(maker: Maker) -> Marked:
    """A part lies in a pocket that must be empty."""
    return maker.broken({maker.pocket(full=False): maker.one_of(list(PARTS))})


def wrong(maker: Maker) -> Marked:
    """A part of another kind lies in a pocket."""
    singles = [p for p, k in enumerate(maker.kinds) if k != EMPTY and p not in PAIR]
    pocket = maker.one_of(singles)
    return maker.broken({pocket: maker.other(maker.kinds[pocket])})


def swapped(maker: Maker) -> Marked:
    """Two parts have changed places."""
    first = maker.pocket(full=True)
    kind = maker.kinds[first]
    second = maker.one_of([p for p, k in enumerate(maker.kinds) if k not in (EMPTY, kind)])
    return maker.broken({first: maker.kinds[second], second: kind})


def misplaced(maker: Maker) -> Marked:
    """A part lies in a pocket that must be empty, and its own is empty."""
    pocket = maker.pocket(full=True)
    return maker.broken({pocket: EMPTY, maker.pocket(full=False): maker.kinds[pocket]})


def mismatched(maker: Maker) -> Marked:
    """Of the pair that must be alike, one cap is of the other colour. Both are marked."""
    pocket, partner = maker.rng.permutation(PAIR).tolist()
    other = "GB".replace(maker.kinds[pocket], "")
    marked = maker.broken({pocket: other})
    footprint = maker.render(maker.kinds).footprints[partner, maker.kinds[partner]]
    return Marked(marked.image, marked.mask | footprint)


def scratch(maker: Maker) -> Marked:
    """A bright scratch across whatever is there."""
    image = maker.render(maker.kinds).image
    size, rng = image.shape[0], maker.rng
    start, angle = rng.uniform(0.2, 0.8, 2), rng.uniform(0, 2 * math.pi)
    along = np.linspace(0, rng.uniform(0.1, 0.25), 24)
    turn = angle + along * rng.uniform(-4, 4)
    line = start + along[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    points = np.rint(line * size * 16).astype(np.int32)
    ink = np.zeros((size, size), np.uint8)
    cv2.polylines(ink, [points], False, 255, max(1, size // 200), cv2.LINE_AA, shift=4)
    return blend(image, np.array([225, 230, 232]), ink / 255 * 0.8)


def chip(maker: Maker) -> Marked:
    """A piece of a part is broken off."""
    pocket = maker.pocket(full=True)
    whole = maker.render(maker.kinds)
    without = maker.kinds[:pocket] + EMPTY + maker.kinds[pocket + 1 :]
    part = whole.footprints[pocket, maker.kinds[pocket]]
    size = part.shape[0]
    rows, columns = np.nonzero(
        part ^ cv2.erode(part.astype(np.uint8), np.ones((3, 3))).astype(bool)
    )
    at = int(maker.rng.integers(len(rows)))
    bite = blob(size, (columns[at], rows[at]), maker.rng.uniform(0.022, 0.032) * size, maker.rng)
    marked = blend(whole.image, maker.render(without).image, bite)
    return Marked(marked.image, marked.mask & part)


def stain(maker: Maker) -> Marked:
    """A dark, oily spot."""
    image = maker.render(maker.kinds).image
    size = image.shape[0]
    place = maker.rng.uniform(0.15, 0.85, 2) * size
    spot = blob(size, (place[0], place[1]), maker.rng.uniform(0.025, 0.05) * size, maker.rng)
    return blend(image, image * np.array([0.45, 0.6, 0.7]), spot * maker.rng.uniform(0.7, 1))


def blob(
    size: int, at: tuple[float, float], radius: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """1 inside of an uneven spot, 0 outside, with a soft edge: size x size."""
    y, x = np.mgrid[:size, :size] - np.array([at[1], at[0]])[:, None, None]
    angle, phases = np.arctan2(y, x), rng.uniform(0, 2 * math.pi, 3)
    waves = sum(np.sin((k + 2) * angle + phase) for k, phase in enumerate(phases))
    return np.asarray(np.clip(0.5 + radius * (1 + 0.12 * waves) - np.hypot(x, y), 0, 1))


def blend(image: NDArray[Any], other: NDArray[Any], share: NDArray[np.float64]) -> Marked:
    """``image`` with ``other`` where ``share`` is 1; marked is where it is not next to 0."""
    mixed = image + share[..., None] * (other - image.astype(np.float64))
    return Marked(np.rint(mixed).astype(np.uint8), share > 0.25)


DEFECTS = {
    LOGICAL: {
        "missing": Defect(255, 1.0, missing),
        "added": Defect(254, 1.0, added),
        "wrong": Defect(253, 1.0, wrong),
        "swapped": Defect(252, 0.5, swapped),
        "misplaced": Defect(251, 0.5, misplaced),
        "mismatched": Defect(250, 0.5, mismatched),
    },
    STRUCTURAL: {
        "scratch": Defect(249, 1.0, scratch),
        "chip": Defect(248, 1.0, chip),
        "stain": Defect(247, 1.0, stain),
    },
}


def config() -> list[dict[str, str | int | float | bool]]:
    """The content of defects_config.json."""
    return [
        {
            "defect_name": name,
            "pixel_value": defect.value,
            "saturation_threshold": defect.saturation,
            "relative_saturation": True,
        }
        for defects in DEFECTS.values()
        for name, defect in defects.items()
    ]


def export(out: Path, args: argparse.Namespace) -> None:
    """Write everything."""
    renderer = Renderer(args.size)
    folders = {"train": args.good, "validation": args.validation, "test": args.test}
    for stream, (folder, count) in enumerate(folders.items()):
        for k in range(count):
            maker = Maker(renderer, np.random.default_rng((args.seed, stream, k)))
            write_png(out / folder / "good" / f"{k:03d}.png", maker.render(maker.kinds).image)
    for stream, (kind, defects) in enumerate(DEFECTS.items(), len(folders)):
        for k in range(args.test):
            maker = Maker(renderer, np.random.default_rng((args.seed, stream, k)))
            defect = list(defects.values())[k % len(defects)]
            marked = defect.make(maker)
            write_png(out / "test" / kind / f"{k:03d}.png", marked.image)
            mask = marked.mask.astype(np.uint8) * np.uint8(defect.value)
            write_png(out / "ground_truth" / kind / f"{k:03d}" / "000.png", mask)
    (out / "defects_config.json").write_text(json.dumps(config(), indent=2) + "\n")


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write ``pixels`` and make the folders on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f"{path}: cannot be written")


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make logical anomalies, as MVTec LOCO has them.")
    parser.add_argument("out", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--good", type=int, default=300, help="good trays to train on")
    parser.add_argument("--validation", type=int, default=40, help="good trays beside them")
    parser.add_argument("--test", type=int, default=60, help="trays to test on, of each folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=256, help="of the images in pixels")
    args = parser.parse_args(argv)
    if args.out.exists():
        parser.error(f"{args.out} exists; give a new folder")
    if min(args.good, args.validation, args.test, args.seed) < 0:
        parser.error("numbers of trays and the seed cannot be negative")
    if not 128 <= args.size <= 2048:
        parser.error("the size must be from 128 to 2048")
    return args


def main(argv: list[str]) -> int:
    """Export and say what was written."""
    args = parse(argv)
    export(args.out, args)
    print(
        f"{args.good + args.validation + 3 * args.test} trays in {args.out}: {args.good} to train, "
        f"{args.validation} to validate, {3 * args.test} to test"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
