"""``efficientad-stream evaluate``: measure a recipe on a labelled data set, by the live path."""

from __future__ import annotations

import argparse
import math
from typing import get_args

from efficientad_stream.config import BackendKind
from efficientad_stream.core.errors import ConfigError
from efficientad_stream.longwork import check_output, given_path

MAX_THREADS = 256
MAX_THRESHOLD = 1e9
OUTPUTS = ("json", "markdown", "html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add = parser.add_argument
    add(
        "--dataset",
        type=given_path,
        required=True,
        help="folder in the layout of MVTec AD, MVTec LOCO or VisA, or one that holds the folders "
        "good and <defect>, or one that holds several such categories",
    )
    add(
        "--recipe",
        type=given_path,
        required=True,
        help="folder of the recipe; for several categories, of recipes of the same names",
    )
    add("--threshold", type=float, help="judge by this one instead of the recipe's")
    add("--corruptions", action="store_true", help="also under changed light, focus, position, ...")
    add("--json", type=given_path, help="write everything, a score for each image included")
    add("--markdown", type=given_path, help="write the tables for a report")
    add("--html", type=given_path, help="write a page with the worst escapes and false rejects")
    add("--limit", type=int, default=0, help="score only so many images, evenly spread")
    add("--backend", choices=get_args(BackendKind), default="auto", help="that scores")
    add("--threads", type=int, default=0, help="of the backend; 0: one a core")


def run(args: argparse.Namespace) -> int:
    """Score every test image, print the figures, write the reports."""
    if args.limit < 0:
        raise ConfigError(f"--limit {args.limit}: must not be negative")
    if not 0 <= args.threads <= MAX_THREADS:
        raise ConfigError(f"--threads {args.threads}: must lie between 0 and {MAX_THREADS}")
    if args.threshold is not None and not math.isfinite(args.threshold):
        raise ConfigError(f"--threshold {args.threshold}: is not a finite number")
    if abs(args.threshold or 0.0) > MAX_THRESHOLD:
        raise ConfigError(f"--threshold {args.threshold}: no score comes near {MAX_THRESHOLD:g}")
    paths = [path for name in OUTPUTS if (path := getattr(args, name)) is not None]
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError("--json, --markdown and --html: give each a file of its own")
    for name in OUTPUTS:
        check_output(f"--{name}", getattr(args, name))
    from efficientad_stream.commands.evaluate.evaluation import evaluate

    return evaluate(args)
