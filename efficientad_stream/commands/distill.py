"""``efficientad-stream distill``: make a teacher from a pretrained backbone and photographs."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from efficientad_stream.core.errors import ArtifactError, ConfigError
from efficientad_stream.longwork import (
    INTERRUPTED,
    StopFlag,
    Ticker,
    given_path,
    parse_duration,
)

if TYPE_CHECKING:
    from efficientad_stream.model.distill import Distillation, DistillSettings

SAVE_EVERY_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command; defaults are the paper's (section 3.1) where it names them."""
    parser.add_argument("--images", type=given_path, required=True, help="folder of photographs")
    parser.add_argument("--out", type=given_path, required=True, help="teacher file, .safetensors")
    parser.add_argument("--from", type=given_path, dest="start", help="begin as this teacher")
    parser.add_argument(
        "--targets", choices=("mixed", "deep"), default="mixed", help="deep: of stride 16 only"
    )
    parser.add_argument(
        "--target-scale", type=int, choices=(1, 2), default=2, help="of a view for the backbone"
    )
    parser.add_argument("--size", choices=("S", "M"), default="S")
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--time-budget", default="", help="e.g. 90m or 2h, in place of --steps")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=256, help="pixels, multiple of 4, 64 to 256")
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--views", type=int, default=512, help="views in the pool, 3.4 MB each")
    parser.add_argument("--crops-per-view", type=int, default=16)
    parser.add_argument("--no-padding", action="store_true", help="train as the PDN inspects")
    parser.add_argument("--batch-norm", action="store_true", help="folded away at the end")
    parser.add_argument("--cosine", action="store_true", help="learning rate along a cosine")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def _settings(args: argparse.Namespace, begun_from: str) -> DistillSettings:
    from efficientad_stream.model.data import memory_budget
    from efficientad_stream.model.distill import DistillSettings
    from efficientad_stream.model.targets import VIEW_BYTES

    if args.crop % 4 or not 64 <= args.crop <= 256:
        raise ConfigError(f"--crop {args.crop}: must be a multiple of 4 from 64 to 256")
    for name in ("steps", "batch", "views", "crops_per_view"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')}: must be at least 1")
    room = 3 * memory_budget() // VIEW_BYTES
    if args.views > room:
        raise ConfigError(f"--views {args.views}: memory has room for {room} at most")
    if not 0 < args.lr < 1:
        raise ConfigError(f"--lr {args.lr}: must lie between 0 and 1")
    seconds = parse_duration("--time-budget", args.time_budget) if args.time_budget else 0.0
    return DistillSettings(
        size=args.size,
        steps=0 if seconds else args.steps,
        seconds=seconds,
        batch=args.batch,
        crop=args.crop,
        learning_rate=args.lr,
        views=args.views,
        crops_per_view=args.crops_per_view,
        padding=not args.no_padding,
        batch_norm=args.batch_norm,
        cosine=args.cosine,
        bfloat16=args.precision == "bf16",
        seed=args.seed,
        begun_from=begun_from,
        targets=args.targets,
        target_scale=args.target_scale,
    )


def run(args: argparse.Namespace) -> int:
    """Distil, or go on with an interrupted distillation."""
    import torch

    from efficientad_stream.model.artifact import load_teacher
    from efficientad_stream.model.data import list_images
    from efficientad_stream.model.distill import Distillation
    from efficientad_stream.model.settings import choose_device

    start = load_teacher(args.start) if args.start else None
    images, settings = list_images(args.images), _settings(args, start.sha256 if start else "")
    if args.out.exists():
        raise ArtifactError(f"{args.out}: exists already; give another name, or remove it")
    device = torch.device(choose_device(args.device))
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {args.out}: cannot be made: {error.strerror}") from error
    work = Distillation(images, settings, args.out, device, start.pdn if start else None)
    ticker = Ticker()
    with StopFlag() as stop:
        work.prepare(ticker.say)
        done = _loop(work, stop, ticker)
    if not done:
        work.save()
        ticker.say(f"stopped at step {work.progress.step}; the same command goes on from there")
        return INTERRUPTED
    _finish(work, images)
    ticker.say(f"{args.out}: step {work.progress.step}, loss {work.progress.loss:.4f}")
    return 0


def _loop(work: Distillation, stop: StopFlag, ticker: Ticker) -> bool:
    """Step until done (True) or asked to stop; a line now and then, a checkpoint a minute."""
    saved = begun = time.monotonic()
    first = work.fraction()
    while work.fraction() < 1.0:
        if stop.asked():
            return False
        work.step()
        now = time.monotonic()
        if ticker.due():
            done, p = work.fraction(), work.progress
            eta_s = (now - begun) * (1 - done) / max(done - first, 1e-9)
            ticker.tick(
                f"step {p.step}  loss {p.loss:.4f}  {100 * done:.1f} %  {eta_s / 60:.0f} min to go"
            )
        if now - saved >= SAVE_EVERY_S:
            work.save()
            saved = now
    return True


def _finish(work: Distillation, images: list[Path]) -> None:
    from efficientad_stream.model.artifact import save_teacher
    from efficientad_stream.model.data import names_digest

    p, s = work.progress, work.settings
    facts = {
        "size": s.size,
        "backbone": "EfficientNet-Lite2, ImageNet",
        "images": str(len(images)),
        "image_names_sha256": names_digest(images),
        "steps": str(p.step),
        "crops": str(p.step * s.batch),
        "crop_px": str(s.crop),
        "loss": f"{p.loss:.4f}",
        "seconds": f"{p.elapsed:.0f}",
        "begun_from": s.begun_from or "random weights",
        "command": "efficientad-stream " + " ".join(sys.argv[1:]),
    }
    save_teacher(work.out, work.net.eval().folded(), facts)
    work.checkpoint.unlink(missing_ok=True)
