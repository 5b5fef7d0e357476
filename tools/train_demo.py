"""Train the recipe that the demo runs, and put it where the package looks for it.

    python tools/train_demo.py --natural PHOTOGRAPHS --steps 10000

renders good parts of the simulated line into WORK/data, trains in WORK/demo (the same command goes
on after an interrupt), measures the recipe on rendered defects, copies it to
efficientad_stream/assets/demo_recipe, runs the demo with it, and makes its picture that of the
front page, docs/img/demo.jpg. Arguments that are not known here go to `efficientad-stream train`,
e.g. --device cuda or --teacher FILE.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import cv2

ROOT = Path(__file__).resolve().parent.parent
ASSET = ROOT / "efficientad_stream" / "assets" / "demo_recipe"
INPUT = "128x160"
"""Small, so that plain PyTorch on two cores keeps up with the demo's four parts a second."""
PICTURE = ROOT / "docs" / "img" / "demo.jpg"
PICTURE_WIDTH = 1280
RECIPE_FILES = ("recipe.yaml", "model.safetensors")


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Arguments of this script, and those for ``train``."""
    parser = argparse.ArgumentParser(description="Train the demo's recipe.")
    parser.add_argument("--natural", type=Path, help="folder of photographs, for the penalty")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--good", type=int, default=300, help="good parts to train on")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "train-demo")
    parser.add_argument("--out", type=Path, default=ASSET, help="where the recipe is copied to")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="of the demo, as a JPEG")
    args, more = parser.parse_known_args(argv)
    return args, more


def program(*arguments: str | Path) -> None:
    """Run one of our programs with this Python; its failure ends this one."""
    command = [sys.executable, *map(str, arguments)]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603 - ours
    if code:
        sys.exit(code)


def make_picture(out: Path, to: Path) -> None:
    """The picture of the demo in ``out``, smaller, as a JPEG."""
    page = cv2.imread(str(out / "demo.png"))
    if page is None:
        sys.exit(f"{out / 'demo.png'}: cannot be read")
    height = round(page.shape[0] * PICTURE_WIDTH / page.shape[1])
    small = cv2.resize(page, (PICTURE_WIDTH, height), interpolation=cv2.INTER_AREA)
    to.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(to), small, [cv2.IMWRITE_JPEG_QUALITY, 88])


def main(argv: list[str]) -> int:
    """Render, train, measure, copy, demonstrate."""
    args, more = parse(argv)
    data, recipe = args.work.resolve() / "data", args.work.resolve() / "demo"
    if not data.exists():
        program("tools/make_simulated_dataset.py", data, "--good", str(args.good))
    penalty = ["--natural", args.natural.resolve()] if args.natural else ["--no-penalty"]
    if not (recipe / "recipe.yaml").exists():
        program(
            *("-m", "efficientad_stream", "train", "--images", data / "train" / "good"),
            *("--input", INPUT, "--steps", str(args.steps), "--out", recipe, *penalty, *more),
        )
    program("-m", "efficientad_stream", "evaluate", "--dataset", data, "--recipe", recipe)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in RECIPE_FILES:
        shutil.copyfile(recipe / name, args.out / name)
    program(
        "-m",
        "efficientad_stream",
        "demo",
        "--recipe",
        args.out.resolve(),
        "--out",
        args.work.resolve() / "out",
    )
    make_picture(args.work / "out", args.picture)
    print(f"the demo's recipe is now {args.out}, its picture {args.picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
