"""Long work: it says how far it is, and stops in order when a signal asks."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from efficientad_stream.core.errors import ArtifactError, ConfigError
from efficientad_stream.core.geometry import Geometry

SAY_EVERY_S = 30.0
"""Between two lines of progress where standard error is no terminal; on one, twice a second."""
INTERRUPTED = 128 + signal.SIGINT
"""Exit code of work that was asked to stop and can be taken up again."""


def parse_duration(option: str, text: str) -> float:
    """Seconds of "90s", "30m" or "2h".

    Raises:
        ConfigError: anything else; names ``option``.
    """
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        seconds = float(text[:-1]) * units[text[-1:]]
    except (KeyError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"{option} {text}: not a duration; say 90s, 30m or 2h")
    return seconds


def parse_input(text: str, channels: int, exposure: str = "as_is") -> Geometry:
    """The geometry of "256" or "256x384" (height x width).

    Raises:
        ConfigError: not that, or sizes that the networks cannot take.
    """
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(re.fullmatch(r"[0-9]{1,9}", side) for side in sides):
        raise ConfigError(f"--input {text}: give 256, or HEIGHTxWIDTH, e.g. 256x384")
    try:
        return Geometry(int(sides[0]), int(sides[-1]), channels, exposure)
    except ArtifactError as error:
        raise ConfigError(f"--input {text}: {error}") from error


def check_output(option: str, path: Path | None) -> None:
    """Raise ConfigError if ``path`` cannot be written: before an hour of work, not after it."""
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{option} {path}: is a folder; give a file")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{option} {path}: cannot be written: no such folder")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise ConfigError(f"{option} {path}: cannot be written: no right to")


def given_path(text: str) -> Path:
    """The path that an argument names; an empty one is an unset variable, not this folder."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; give a path")
    return Path(text)


class StopFlag:
    """SIGINT and SIGTERM ask to stop after the step; a second one stops at once."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[signal.Signals, object] = {}

    def asked(self) -> bool:
        """Has somebody asked to stop?"""
        return self._asked

    def __enter__(self) -> StopFlag:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True


class Ticker:
    """Progress on standard error: one line that is rewritten, or a line now and then."""

    def __init__(self) -> None:
        self._tty = sys.stderr.isatty()
        self._said = time.monotonic()
        self._open = False

    def say(self, text: str) -> None:
        """A line of its own."""
        print("\n" * self._open + text, file=sys.stderr, flush=True)
        self._open = False

    def due(self) -> bool:
        """Is it time for the next line? Saves making it when it is not."""
        return time.monotonic() - self._said >= (0.5 if self._tty else SAY_EVERY_S)

    def tick(self, line: str) -> None:
        """How far it is; takes the place of the last such line on a terminal."""
        self._said = time.monotonic()
        end = "" if self._tty else "\n"
        print(f"\r{line}  " if self._tty else line, end=end, file=sys.stderr, flush=True)
        self._open = self._tty
