"""``efficientad-stream demo``: the main job on a simulated line, and what came of it.

The real daemon runs in one process and the real ``watch`` in another; nothing here scores. What is
printed and drawn is what ``watch`` received, measured against the truth that the simulator knows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from efficientad_stream.core.errors import ConfigError

PARTS = 100
FPS = 4.0
DEFECT_RATE = 0.3
MAX_SEED = 2**63 - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Length, rate and place of the demo."""
    add = parser.add_argument
    add("--parts", type=int, default=PARTS, help=f"how many (default {PARTS})")
    add("--fps", type=float, default=FPS, help=f"parts a second, 0: unpaced (default {FPS:g})")
    add("--out", type=Path, default=Path("demo-out"), help="folder of results (default demo-out)")
    add("--recipe", type=Path, help="folder of a recipe (default: the one that comes along)")
    add("--seed", type=int, default=0, help="another seed is another line and other parts")
    add("--defect-rate", type=float, default=DEFECT_RATE, help=f"(default {DEFECT_RATE:g})")


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 if every part got exactly one verdict and seq has no gap."""
    if args.parts < 1:
        raise ConfigError(f"--parts {args.parts}: must be 1 or more")
    if not 0 <= args.fps <= 1000:
        raise ConfigError(f"--fps {args.fps}: must lie between 0 and 1000")
    if not 0 <= args.defect_rate <= 1:
        raise ConfigError(f"--defect-rate {args.defect_rate}: must lie between 0 and 1")
    if not 0 <= args.seed <= MAX_SEED:
        raise ConfigError(f"--seed {args.seed}: must lie between 0 and {MAX_SEED}")
    from efficientad_stream.commands.demo.station import run_demo

    return run_demo(args)
