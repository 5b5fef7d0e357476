"""Train and measure variants on one data set: the table of docs/benchmarks/accuracy.md.

    python tools/benchmark_accuracy.py --dataset mtd --natural photographs --work build/accuracy \
        --seeds 0 1 2 --variants base size_m builtin no_penalty mean_loss as_is random_teacher

Each variant differs from "base" in one choice (``VARIANTS``). Every training and every evaluation
is a command of its own, and what is finished is not done again: the same call goes on after an
interrupt, and a call with more seeds or variants adds to the table.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch

from efficientad_stream.commands.bench.report import machine
from efficientad_stream.core.evaluation import auroc
from efficientad_stream.model.artifact import save_teacher
from efficientad_stream.model.networks import PDN

ROOT = Path(__file__).resolve().parent.parent
RANDOM_TEACHER = "random_teacher.safetensors"
VARIANTS: dict[str, tuple[str, ...]] = {
    "base": (),
    "size_m": ("--size", "M"),
    "paper_method": ("--method", "paper"),
    "builtin": ("--natural", "builtin"),
    "no_penalty": ("--no-penalty",),
    "mean_loss": ("--p-hard", "0"),
    "as_is": ("--exposure", "as_is"),
    "augmented": ("--augment", "all"),
    "random_teacher": ("--teacher", RANDOM_TEACHER),
}
NO_NORMALISATION = "no_normalisation"
"""Of "base", with quantiles that change nothing: no training of its own."""
PLAIN_QUANTILES = {"qa_st": 0.0, "qb_st": 0.1, "qa_ae": 0.0, "qb_ae": 0.1}


class Row(NamedTuple):
    """One trained and measured recipe; areas in percent."""

    variant: str
    seed: int
    image: float
    local: float
    globl: float
    pro: float
    defects: dict[str, float]
    steps: str
    minutes: float


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description="Train and measure variants of one data set.")
    add = parser.add_argument
    add("--dataset", type=Path, required=True, help="in MVTec's layout, with train/good")
    add("--natural", type=Path, required=True, help="folder of photographs")
    add("--work", type=Path, required=True, help="recipes and figures; kept")
    add("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "accuracy.md")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    names = [*VARIANTS, NO_NORMALISATION]
    add("--variants", nargs="+", choices=names, default=["base"], metavar="NAME")
    add("--steps", type=int, default=1500)
    add("--input", default="256", help="input size, as of train")
    add("--autoencoder-steps", type=int, default=1500)
    add("--threads", type=int, default=0, help="of each command; 0: one a core")
    return parser.parse_args(argv)


def program(arguments: Sequence[str | Path], work: Path) -> None:
    """Run one of our commands in ``work``; its failure ends this one."""
    command = [sys.executable, "-m", "efficientad_stream", *map(str, arguments)]
    print("+", *command[2:], flush=True)
    code = subprocess.run(command, cwd=work, check=False).returncode  # noqa: S603 - ours
    if code:
        sys.exit(code)


def train(args: argparse.Namespace, variant: str, seed: int) -> Path:
    """The recipe of a variant and seed, trained unless it is there."""
    out: Path = args.work / f"{variant}-{seed}"
    if (out / "recipe.yaml").exists():
        return out
    if variant == NO_NORMALISATION:
        _without_normalisation(train(args, "base", seed), out)
        return out
    change = VARIANTS[variant]
    length = ["--steps", args.steps]
    if variant != "paper_method":
        length += ["--autoencoder-steps", args.autoencoder_steps]
    penalty = [] if "--no-penalty" in change else ["--natural", args.natural]
    where = ["--images", args.dataset / "train" / "good", "--out", out, "--seed", seed]
    where += ["--input", args.input]
    program(["train", *map(str, [*where, *penalty, *length]), *change], args.work)
    return out


def _without_normalisation(base: Path, out: Path) -> None:
    """A copy of a recipe whose two maps are averaged as they are."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes())
    text = (base / "recipe.yaml").read_text()
    for name, value in PLAIN_QUANTILES.items():
        text = re.sub(rf"(?m)^  {name}: .*$", f"  {name}: {value}", text)
    (out / "recipe.yaml").write_text(text)


def measure(args: argparse.Namespace, recipe: Path) -> Row:
    """The figures of a recipe, evaluated unless they are there."""
    figures = args.work / f"{recipe.name}.json"
    if not figures.exists():
        what = ["--dataset", args.dataset, "--recipe", recipe, "--threads", args.threads]
        program(["evaluate", *map(str, what), "--json", figures], args.work)
    variant, seed = recipe.name.rsplit("-", 1)
    notes = (recipe / "recipe.yaml").read_text()
    return as_row(json.loads(figures.read_text()), notes, variant, int(seed))


def as_row(report: dict[str, Any], recipe: str, variant: str, seed: int) -> Row:
    """A row of the table from what ``evaluate`` and ``train`` have written."""
    notes = dict(re.findall(r"(?m)^  (\w+): (.*)$", recipe.split("training:")[1]))
    images = [one for one in report["images"] if one["score"] is not None]
    defective = [one["truth"] != "good" for one in images]
    local, globl = (
        100 * auroc([one[f"{branch}_score"] for one in images], defective)
        for branch in ("local", "global")
    )
    return Row(
        variant,
        seed,
        100 * report["image_auroc"],
        local,
        globl,
        100 * (report["au_pro"] or 0.0),
        {kind: 100 * part["image_auroc"] for kind, part in report["per_defect"].items()},
        f"{notes['autoencoder_steps']} + {notes['steps']}",
        float(notes["seconds"]) / 60,
    )


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown: a row for each recipe, and the mean of each variant with several seeds."""
    kinds = sorted({kind for row in rows for kind in row.defects})
    head = ["variant", "seed", "AU-ROC", "local", "global", "AU-PRO", *kinds, "steps", "min"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for variant in dict.fromkeys(row.variant for row in rows):
        some = [row for row in rows if row.variant == variant]
        lines += [_line(row, str(row.seed), kinds) for row in some]
        if len(some) > 1:
            lines.append(_line(_mean(some), "mean", kinds))
    return lines


def _mean(rows: Sequence[Row]) -> Row:
    names = ("image", "local", "globl", "pro")
    image, local, globl, pro = (mean(getattr(row, name) for row in rows) for name in names)
    kinds = {kind: mean(row.defects[kind] for row in rows) for kind in rows[0].defects}
    steps = rows[0].steps if len({row.steps for row in rows}) == 1 else ""
    minutes = mean(row.minutes for row in rows)
    return Row(rows[0].variant, -1, image, local, globl, pro, kinds, steps, minutes)


def _line(row: Row, seed: str, kinds: Sequence[str]) -> str:
    areas = [row.image, row.local, row.globl, row.pro, *(row.defects[kind] for kind in kinds)]
    cells = [row.variant, seed, *(f"{area:.1f}" for area in areas), row.steps, f"{row.minutes:.1f}"]
    return "| " + " | ".join(cells) + " |"


def main(argv: Sequence[str]) -> int:
    """Train, measure, write."""
    args = parse(argv)
    for name in ("dataset", "natural", "work", "out"):
        setattr(args, name, getattr(args, name).resolve())
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    save_teacher(args.work / RANDOM_TEACHER, PDN("S"), {"size": "S", "note": "random weights"})
    pairs = [(variant, seed) for variant in args.variants for seed in args.seeds]
    rows = [measure(args, train(args, variant, seed)) for variant, seed in pairs]
    shown = " ".join(Path(word).name if "/" in word else word for word in argv)
    page = [
        "# Accuracy",
        "",
        f"Made by `python tools/benchmark_accuracy.py {shown}`",
        "",
        f"on {torch.get_num_threads()} cores of {machine()}.",
        "Areas in percent. AU-ROC, local and global: over images, by the score and by the maximum",
        "of one map alone. Below a defect: of its images against all good ones. Steps: of the",
        "autoencoder, and of the student.",
        "",
        *table(rows),
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(page) + "\n")
    print("\n".join(table(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
