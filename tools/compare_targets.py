"""Which of the backbone's features tell defects from good parts, before any teacher is distilled?

    python tools/compare_targets.py --dataset mtd --input 256 --scales 1 2

For each group of features, at each size that the backbone may see the image at: image AU-ROC of the
distance to the nearest of some thousands of positions of good images, largest over the positions of
an image. Nothing is trained, so a group that fails here makes a poor target, and the table says
which depth, and which scale, is worth distilling.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from efficientad_stream.core.evaluation import auroc
from efficientad_stream.core.geometry import Geometry
from efficientad_stream.core.types import GOOD
from efficientad_stream.model.backbone import EfficientNetLite2, load_backbone
from efficientad_stream.model.data import list_images, read_image, spread
from efficientad_stream.model.dataset import find_datasets
from efficientad_stream.model.features import to_rgb
from efficientad_stream.model.frames import prepare

GROUPS: dict[str, tuple[str, ...]] = {
    "stride8": ("stride8",),
    "expanded8": ("expanded8",),
    "stride16_mid": ("stride16_mid",),
    "stride16": ("stride16",),
    "both of 8": ("stride8", "expanded8"),
    "both of 16": ("stride16_mid", "stride16"),
    "deep": ("stride16_mid", "stride16", "expanded16"),
    "all": ("stride8", "expanded8", "stride16_mid", "stride16", "expanded16"),
}
PER_IMAGE = 24
"""Positions of each good image that are remembered."""
MOST_POSITIONS = 1024
"""Positions of a test image that are compared."""
SMALLEST_STD = 1e-3

Described = dict[str, Tensor]
"""Features of one image by name, 1 x C x h x w, averaged over 3 x 3 neighbours."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description="Compare the backbone's features on a data set.")
    add = parser.add_argument
    add("--dataset", type=Path, required=True, help="labelled, with train/good")
    add("--input", type=int, default=256, help="side in pixels that images are brought to")
    add("--scales", type=float, nargs="+", default=[1.0, 2.0], help="of that, for the backbone")
    add("--exposure", choices=("level", "as_is"), default="level")
    add("--good", type=int, default=190, help="good images to remember")
    add("--test", type=int, default=291, help="test images, evenly spread")
    return parser.parse_args(argv)


@torch.no_grad()
def describe(net: EfficientNetLite2, path: Path, geometry: Geometry, scale: float) -> Described:
    """What the backbone says of an image at ``scale`` times the input size."""
    rgb = to_rgb([prepare(read_image(path, geometry.channels), geometry)], "cpu")
    if scale != 1:
        rgb = F.interpolate(rgb, scale_factor=scale, mode="bilinear", align_corners=False)
    features = net(rgb.contiguous(memory_format=torch.channels_last))
    return {
        name: F.avg_pool2d(getattr(features, name), 3, 1, 1, count_include_pad=False).bfloat16()
        for name in GROUPS["all"]
    }


def compare(
    good: Sequence[Described], test: Sequence[Described], names: Sequence[str]
) -> list[float]:
    """Score of each test image by one group of features."""
    norms = {name: _norm([image[name] for image in good]) for name in names}

    def rows(image: Described) -> Tensor:
        size = image[names[0]].shape[2:]
        parts = [(image[name].float() - norms[name][0]) / norms[name][1] for name in names]
        same = [F.interpolate(p, size, mode="bilinear", align_corners=False) for p in parts]
        return torch.cat(same, 1)[0].flatten(1).T

    rng = torch.Generator().manual_seed(0)
    memory = torch.cat([_some(rows(image), PER_IMAGE, rng) for image in good])
    return [
        float(torch.cdist(_some(rows(t), MOST_POSITIONS, rng), memory).amin(1).amax()) for t in test
    ]


def _norm(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    std, mean = torch.std_mean(torch.cat(images).float(), (0, 2, 3), keepdim=True)
    return mean, std.clamp_min(SMALLEST_STD)


def _some(rows: Tensor, count: int, rng: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=rng)[:count]]


def main(argv: Sequence[str]) -> int:
    """Print a row of Markdown for each scale and group."""
    args = parse(argv)
    geometry = Geometry(args.input, args.input, 3, args.exposure)
    paths = list_images(args.dataset / "train" / GOOD)
    (dataset,) = find_datasets(args.dataset)
    items = [dataset.items[i] for i in spread(len(dataset.items), args.test)]
    kinds = sorted({item.kind for item in items} - {GOOD})
    net = load_backbone().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    print("| backbone sees | features | all | " + " | ".join(kinds) + " |")
    print("|---|---|---|" + "---|" * len(kinds))
    for scale in args.scales:
        begun = time.monotonic()
        good = [describe(net, paths[i], geometry, scale) for i in spread(len(paths), args.good)]
        test = [describe(net, item.path, geometry, scale) for item in items]
        for group, names in GROUPS.items():
            scores = compare(good, test, names)
            areas = []
            for wanted in ((), *((kind,) for kind in kinds)):
                some = [
                    i for i, item in enumerate(items) if not wanted or item.kind in (GOOD, *wanted)
                ]
                areas.append(auroc([scores[i] for i in some], [items[i].defective for i in some]))
            cells = " | ".join(f"{100 * area:.1f}" for area in areas)
            print(f"| {round(args.input * scale)} px | {group} | {cells} |", flush=True)
        print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
