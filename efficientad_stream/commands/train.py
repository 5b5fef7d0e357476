"""``efficientad-stream train``: a recipe from images of good parts."""

from __future__ import annotations

import argparse
import re
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from efficientad_stream.core.errors import ArtifactError, ConfigError
from efficientad_stream.core.geometry import FITS
from efficientad_stream.core.placement import Rect
from efficientad_stream.core.recipe import NAME, NAME_RULE, Recipe
from efficientad_stream.longwork import (
    INTERRUPTED,
    StopFlag,
    Ticker,
    given_path,
    parse_duration,
    parse_input,
)

if TYPE_CHECKING:
    from efficientad_stream.model.job import TrainJob
    from efficientad_stream.model.train import Progress

MAX_SEED = 2**63 - 1
MAX_BATCH = 1024
MAX_STEPS = 100_000_000
PAPER_STEPS = 70_000
DEFAULT_BUDGET = "30m"
DEFAULT_PATIENCE = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command; the defaults are the paper's where it names them."""
    add = parser.add_argument
    add(
        "--images",
        type=given_path,
        required=True,
        help="good parts: a folder, or a video",
    )
    add("--frames", default="", help="of a video: START:STOP or START:STOP:STEP, e.g. 0:400:2")
    add("--natural", help="photographs for the penalty (section 3.2): a folder, or builtin: drawn")
    add("--no-penalty", action="store_true", help="train without photographs: detects less")
    add("--out", type=given_path, required=True, help="folder of the recipe")
    add("--name", default="", help="of the recipe; default: the folder's name")
    add("--revision", type=int, default=1)
    add("--size", choices=("S", "M"), default="S")
    add("--input", default="256", help="input size in pixels: 256, or HEIGHTxWIDTH, e.g. 256x384")
    add("--grey", action="store_true", help="a recipe for grey cameras")
    add("--exposure", choices=("level", "as_is"), default="level", help="level: same brightness")
    add("--fit", choices=FITS, default="stretch", help="how a frame is brought to the input size")
    add("--region", default="", help="look at X,Y,WIDTH,HEIGHT of the frame only, in pixels")
    add(
        "--mask",
        type=given_path,
        help="picture as large as a frame; black: not inspected",
    )
    add("--method", choices=("fast", "paper"), default="fast", help="paper: as published, slow")
    add("--time-budget", default="", help="e.g. 30m or 2h, in place of --steps; default 30m")
    add("--steps", type=int, help="of the student; default of --method paper: 70000")
    add("--autoencoder-steps", type=int, help="of --method fast; default: half of --steps")
    add(
        "--patience",
        type=int,
        help="looks without a gain before it stops early",
    )
    add("--p-hard", type=float, default=0.999, help="mining factor (section 3.2); 0: plain mean")
    add("--augment", default="none", help="all, none, or of gain,gamma,blur,shift,noise")
    add("--batch", type=int, default=1, help="good images a step")
    add("--seed", type=int, default=0)
    add(
        "--teacher",
        type=given_path,
        help="teacher file; default: the package's own",
    )
    add("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--limit", type=int, default=0, help="use only so many good images, evenly spread")
    add("--false-rejects", type=float, default=1e-3, help="share of good parts that may be lost")


def run(args: argparse.Namespace) -> int:
    """Train, or go on with an interrupted training; then calibrate and write the recipe."""
    check(args)
    job = _job(args)
    from efficientad_stream.model.job import Listener, make_recipe
    from efficientad_stream.model.memory import keep_freed_memory

    keep_freed_memory()
    reporter = Reporter()
    try:
        with StopFlag() as stop:
            recipe = make_recipe(job, Listener(reporter.say, reporter.report, stop.asked))
    except KeyboardInterrupt:
        reporter.say("stopped at once, without saving")
        raise
    if recipe is None:
        reporter.say(f"stopped after step {reporter.step}; the same command goes on from there")
        return INTERRUPTED
    print(summary(recipe, args.out))
    return 0


def check(args: argparse.Namespace) -> None:
    """Raise ConfigError for what can be seen to be wrong before anything is read."""
    for name in ("steps", "autoencoder_steps", "batch", "revision"):
        value = getattr(args, name)
        if value is not None and not 1 <= value <= MAX_STEPS:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: must be 1 to {MAX_STEPS}")
    for name in ("limit", "patience"):
        if (getattr(args, name) or 0) < 0:
            raise ConfigError(f"--{name} {getattr(args, name)}: must not be negative")
    if not 0 <= args.p_hard < 1:
        raise ConfigError(f"--p-hard {args.p_hard}: must lie between 0 and 1, 1 left out")
    if not 0 <= args.seed <= MAX_SEED:
        raise ConfigError(f"--seed {args.seed}: must lie between 0 and {MAX_SEED}")
    if args.batch > MAX_BATCH:
        raise ConfigError(f"--batch {args.batch}: must be {MAX_BATCH} or less")
    if not 0 < args.false_rejects < 1:
        raise ConfigError(f"--false-rejects {args.false_rejects}: must lie between 0 and 1")
    if (args.natural is None) != args.no_penalty:
        raise ConfigError(
            "give either --natural DIR (photographs of anything, for the penalty of section 3.2), "
            "--natural builtin (drawn images) or --no-penalty, which detects less"
        )


def parse_length(args: argparse.Namespace) -> tuple[int, int, float]:
    """Steps of the student, steps of the autoencoder alone, seconds; 0: the other decides.

    Raises:
        ConfigError: both steps and a time budget, or what the method has not.
    """
    paper = args.method == "paper"
    if args.time_budget and args.steps:
        raise ConfigError("give --steps or --time-budget, not both")
    if args.autoencoder_steps and (paper or not args.steps):
        raise ConfigError("--autoencoder-steps goes with --steps and --method fast")
    if args.steps:
        return args.steps, 0 if paper else args.autoencoder_steps or -(-args.steps // 2), 0.0
    if args.time_budget or not paper:
        return 0, 0, parse_duration("--time-budget", args.time_budget or DEFAULT_BUDGET)
    return PAPER_STEPS, 0, 0.0


def parse_natural(text: str | None) -> Path | Literal["builtin"] | None:
    """A folder of photographs, unless it is "builtin"; a folder of that name is ./builtin."""
    if text is None or text == "builtin":
        return "builtin" if text else None
    if not text:
        raise ConfigError("--natural: is empty; give a folder of photographs, or builtin")
    return Path(text)


def parse_region(text: str) -> Rect | None:
    """The rectangle of "X,Y,WIDTH,HEIGHT"; None of "".

    Raises:
        ConfigError: not four whole numbers.
    """
    if not text:
        return None
    parts = text.split(",")
    if len(parts) != 4 or not all(re.fullmatch(r"[0-9]{1,9}", part) for part in parts):
        raise ConfigError(f"--region {text}: give X,Y,WIDTH,HEIGHT in pixels, e.g. 100,0,640,480")
    return Rect(*map(int, parts))


def _job(args: argparse.Namespace) -> TrainJob:
    """The arguments as a job."""
    plain = parse_input(args.input, 1 if args.grey else 3, args.exposure)
    region = parse_region(args.region)
    steps, autoencoder_steps, seconds = parse_length(args)
    patience = args.patience
    if patience is None:
        patience = DEFAULT_PATIENCE if args.method == "fast" else 0
    name = args.name or args.out.resolve().name
    if not NAME.fullmatch(name):
        raise ConfigError(f"--name {name!r}: is not {NAME_RULE}")
    from efficientad_stream.model.augment import parse_kinds
    from efficientad_stream.model.job import TrainJob
    from efficientad_stream.model.mask import make_geometry
    from efficientad_stream.model.video import parse_frames

    frames = parse_frames(args.frames) if args.frames else None
    try:
        geometry = make_geometry(
            plain, args.images, frames, fit=args.fit, region=region, mask=args.mask
        )
    except ArtifactError as error:
        if not str(error).startswith("input.region: "):
            raise
        reason = str(error).removeprefix("input.region: ")
        raise ConfigError(f"--region {args.region}: {reason}") from error
    return TrainJob(
        images=args.images,
        natural=parse_natural(args.natural),
        out=args.out,
        name=name,
        geometry=geometry,
        revision=args.revision,
        size=args.size,
        method=args.method,
        steps=steps,
        autoencoder_steps=autoencoder_steps,
        seconds=seconds,
        augment=parse_kinds(args.augment),
        batch=args.batch,
        patience=patience,
        p_hard=args.p_hard,
        seed=args.seed,
        teacher=args.teacher,
        frames=frames,
        limit=args.limit,
        false_rejects=args.false_rejects,
        device=args.device,
        precision=args.precision,
    )


def summary(recipe: Recipe, folder: Path) -> str:
    """What came out, for people."""
    notes, choice = recipe.training, recipe.threshold
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return (
        f"{folder}: recipe {recipe.name} revision {recipe.revision}, {notes['autoencoder_steps']} "
        f"+ {notes['steps']} steps in "
        f"{notes['seconds']} s, peak memory {peak} MiB\n"
        f"threshold {choice.value:.4f} by {choice.method} from {choice.data}; the worst of them "
        f"scored {notes['held_back_worst_score']:.4f}"
    )


class Reporter:
    """Tells of the training's progress."""

    def __init__(self) -> None:
        self._ticker = Ticker()
        self.say = self._ticker.say
        self.step = 0

    def report(self, progress: Progress) -> None:
        """Losses, rate and time to go, unless that was said just now."""
        self.step = progress.step
        if progress.step != progress.steps and not self._ticker.due():
            return
        hard, penalty, auto, both = progress.losses
        self._ticker.tick(
            f"step {progress.step}/{progress.steps or '?'}  hard {hard:.4f}  "
            f"penalty {penalty:.4f}  autoencoder {auto:.4f}  student-autoencoder {both:.4f}  "
            f"{progress.steps_per_s:.2f}/s  {progress.eta_s / 60:.0f} min to go"
        )
