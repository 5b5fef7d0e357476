"""``efficientad-stream bench``: how fast this machine scores, and how near to its limit."""

from __future__ import annotations

import argparse

from efficientad_stream.config import BackendKind
from efficientad_stream.core.errors import ConfigError
from efficientad_stream.longwork import check_output, given_path

ENGINES: tuple[BackendKind, ...] = ("cpu", "torch_cpu")
MAX_THREADS = 256
MOST_ROUNDS = 100_000
MOST_FRAMES = 64
MOST_SIDE = 16_384


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add = parser.add_argument
    add("--backends", nargs="+", choices=ENGINES, default=None, help="default: all that are there")
    add("--sizes", nargs="+", choices=("S", "M"), default=["S"], help="of the networks")
    add("--inputs", nargs="+", default=["256"], help="input sizes: 256, or HEIGHTxWIDTH")
    add("--batches", nargs="+", type=int, default=[1], help="frames scored together")
    add("--threads", type=int, default=0, help="0: one a core")
    add("--frame", default="", help="camera frame in pixels, HEIGHTxWIDTH; default: the input")
    add("--images", type=given_path, help="frames from this folder instead of noise")
    add("--recipe", type=given_path, help="trained networks instead of random ones, at their input")
    add(
        "--compare", action="store_true", help="beside the plain network, as published code runs it"
    )
    add("--rounds", type=int, default=30, help="of all that is compared, in turn")
    add("--json", type=given_path, help="write the rows; -: to standard output, without the table")
    add("--markdown", type=given_path, help="write the table, with machine and versions")


def run(args: argparse.Namespace) -> int:
    """Measure all that was asked for, print the table, write the reports."""
    for name, value, least, most in (
        ("threads", args.threads, 0, MAX_THREADS),
        ("rounds", args.rounds, 3, MOST_ROUNDS),
        *(("batches", count, 1, MOST_FRAMES) for count in args.batches),
    ):
        if not least <= value <= most:
            raise ConfigError(f"--{name} {value}: must lie between {least} and {most}")
    to_screen = args.json is not None and str(args.json) == "-"
    check_output("--json", None if to_screen else args.json)
    check_output("--markdown", args.markdown)
    from efficientad_stream.commands.bench.job import bench

    return bench(args)
