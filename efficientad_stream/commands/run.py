"""``run``: inspect with one station until its source ends or a signal comes."""

from __future__ import annotations

import argparse
import atexit
import os
import sys

from efficientad_stream.config import load
from efficientad_stream.core.errors import EfficientADError
from efficientad_stream.tolerant import never_wait

STDERR = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The configuration, and values that override it."""
    parser.add_argument("config", metavar="CONFIG", help="configuration of the station (YAML)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a value, such as source.fps=30",
    )


def run(args: argparse.Namespace) -> int:
    """Inspect; 0 when the source has ended or a signal came and everything was answered."""
    config = load(args.config, args.overrides)
    if sys.stderr is sys.__stderr__:
        never_wait(STDERR)
    from efficientad_stream.app import build  # the engines, only now that the words are right
    from efficientad_stream.model.memory import keep_freed_memory

    keep_freed_memory()
    daemon = build(config)
    code = EfficientADError.exit_code
    try:
        code = daemon.run()
    except EfficientADError as error:
        code = error.exit_code
        raise
    finally:
        if daemon.stuck:  # a thread in native code may hold up or crash an orderly end
            atexit.register(os._exit, code)
    return code
