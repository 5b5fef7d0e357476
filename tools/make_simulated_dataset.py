"""Export the simulated line as a labelled data set in the layout of MVTec AD.

    python tools/make_simulated_dataset.py OUT --good 300 --defects 10

writes OUT/train/good, OUT/test/good, OUT/test/<defect> and OUT/ground_truth/<defect> (masks). The
same arguments always give the same pictures. Parts come from several lines that differ in belt,
turning marks and noise, and from none that ``seed`` 0 to 999 of the source ``simulated`` shows.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2

from efficientad_stream.config import SimulatedSource
from efficientad_stream.core.types import GOOD, PixelArray
from efficientad_stream.sources.rendering.defects import DEFECTS
from efficientad_stream.sources.rendering.line import Line

FIRST_SEED = 1000
TEST_FROM = 100_000
"""Index of the first part of the test set; training parts are counted from 0."""


class Lines:
    """Several lines that take turns."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._lines = [
            Line(
                SimulatedSource(
                    width=args.width, height=args.height, grey=args.grey, seed=FIRST_SEED + k
                )
            )
            for k in range(args.lines)
        ]

    def write(self, index: int, truth: str, frame: Path, mask: Path | None = None) -> None:
        """Render part ``index`` as ``truth`` says into the files ``frame`` and ``mask``."""
        part = self._lines[index % len(self._lines)].render(index, truth)
        write_png(frame, part.frame)
        if mask is not None:
            write_png(mask, part.mask)


def write_png(path: Path, pixels: PixelArray) -> None:
    """Write ``pixels`` and make the folders on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f"{path}: cannot be written")


def export(out: Path, args: argparse.Namespace) -> int:
    """Write all parts; returns how many."""
    lines = Lines(args)
    for k in range(args.good):
        lines.write(k, GOOD, out / "train" / GOOD / f"{k:04d}.png")
    for k in range(args.test_good):
        lines.write(TEST_FROM + k, GOOD, out / "test" / GOOD / f"{k:04d}.png")
    index: int = TEST_FROM + args.test_good
    for defect in DEFECTS:
        for k in range(args.defects):
            frame = out / "test" / defect / f"{k:04d}.png"
            mask = out / "ground_truth" / defect / f"{k:04d}_mask.png"
            lines.write(index, defect, frame, mask)
            index += 1
    return int(args.good) + index - TEST_FROM


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Export simulated parts in the MVTec AD layout.")
    parser.add_argument("out", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--good", type=int, default=300, help="good parts to train on")
    parser.add_argument("--test-good", type=int, default=100, help="good parts to test on")
    parser.add_argument("--defects", type=int, default=10, help="parts to test on, of each defect")
    parser.add_argument("--lines", type=int, default=10, help="lines that they come from")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--grey", action="store_true")
    args = parser.parse_args(argv)
    if args.out.exists():
        parser.error(f"{args.out} exists; give a new folder")
    if args.lines < 1 or min(args.good, args.test_good, args.defects) < 0:
        parser.error("numbers of parts cannot be negative, and there must be a line")
    if not (64 <= args.width <= 8192 and 64 <= args.height <= 8192):
        parser.error("width and height must be from 64 to 8192")
    return args


def main(argv: list[str]) -> int:
    """Export and say what was written."""
    args = parse(argv)
    count = export(args.out, args)
    print(f"{count} parts in {args.out}: {args.good} to train, {count - args.good} to test")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
