"""The command line: a table of commands, of which only the chosen one is imported.

Each module in ``commands`` has ``add_arguments(parser)`` and ``run(args) -> int``.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

from efficientad_stream import __version__
from efficientad_stream.core.errors import ConfigError, EfficientADError, FatalError
from efficientad_stream.tolerant import Tolerant

PROG = "efficientad-stream"

PACKAGE = "efficientad_stream.commands."
COMMANDS = {
    "run": "inspect: frames in, verdicts out, until told to stop",
    "watch": "print the verdicts of a running station",
    "journal": "list, show or verify the recorded verdicts",
    "config": "check or show a configuration file",
    "train": "make a recipe from images of good parts",
    "evaluate": "measure a recipe on a labelled data set",
    "bench": "measure how fast this machine scores",
    "teacher": "import or describe a teacher network",
    "distill": "make a teacher from a pretrained backbone",
    "demo": "a simulated line from end to end, in one picture",
}

EXIT_INTERNAL = 70
"""A defect of this program (sysexits.h: EX_SOFTWARE)."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LONGEST_NAME = 200
"""Characters of a file name that a message shows."""
EXIT_SIGNAL = 128
"""Plus the number of the signal, as shells have it: 130 interrupted, 141 reader gone."""


class Command(Protocol):
    """What the command line expects of a module in ``commands``."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; the result is the exit code."""


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError: the arguments are wrong."""
        raise ConfigError(f"{message}; see '{self.prog} --help'")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (docs/configuration.md lists them)."""
    _open_standard_files()
    try:
        code = _dispatch(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
    except EfficientADError as error:
        return _complain(error)
    except KeyboardInterrupt:
        return EXIT_SIGNAL + signal.SIGINT
    except BrokenPipeError:
        return _reader_gone()
    except Exception as error:  # noqa: BLE001 - the last stop: every error has a code of its own
        return _unforeseen(error)
    return code


def _dispatch(argv: list[str]) -> int:
    """Find the command, import it, parse its arguments, run it."""
    if not argv or argv[0].startswith("-"):
        return _top_level(argv)
    name = argv[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(COMMANDS)}"
        raise ConfigError(f"unknown command {name!r}; {hint}")
    summary = COMMANDS[name]
    command = cast("Command", importlib.import_module(PACKAGE + name))
    parser = Parser(prog=f"{PROG} {name}", description=summary[0].upper() + summary[1:] + ".")
    command.add_arguments(parser)
    try:
        args = parser.parse_args(argv[1:])
    except SystemExit as done:  # --help
        return int(done.code or 0)
    return command.run(args)


def _top_level(argv: list[str]) -> int:
    """``--help``, ``--version``, or neither, which is a mistake."""
    width = max(map(len, COMMANDS))
    table = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items())
    parser = Parser(
        prog=PROG,
        usage=f"{PROG} COMMAND [ARGUMENTS]",
        description="Camera-line inspection with EfficientAD.",
        epilog=f"commands:\n{table}\n\n'{PROG} COMMAND --help' says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    try:
        parser.parse_args(argv)
    except SystemExit as done:
        return int(done.code or 0)
    return parser.error("a command is missing")


def _open_standard_files() -> None:
    """Whoever started us with closed standard files gets /dev/null in their place.

    The numbers 0 to 2 must not go to a journal or a socket: libraries write their complaints there.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
    os.close(handle)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - open until the end


def _reader_gone() -> int:
    """Whoever read standard output has left (``| head``); no more is written to it."""
    _discard_output()
    return EXIT_SIGNAL + signal.SIGPIPE


def _discard_output() -> None:
    """What is left in the buffer of standard output goes nowhere; else it would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(error: EfficientADError) -> int:
    Tolerant(sys.stderr).write(f"{PROG}: {error}\n")
    return error.exit_code


def _unforeseen(error: Exception) -> int:
    """What the machine lacks or refuses is for its owner; all else is a defect."""
    if isinstance(error, ImportError) and not _ours(error):
        return _complain(_not_installed(error))
    if isinstance(error, OSError) and error.filename is not None:
        return _complain(_not_usable(error))
    if isinstance(error, OSError) and error.errno in FULL:
        _discard_output()
        return _complain(EfficientADError(f"standard output cannot be written: {error.strerror}"))
    return _internal()


def _internal() -> int:
    words = "internal error, please report it with the lines above"
    Tolerant(sys.stderr).write(f"{traceback.format_exc()}{PROG}: {words}\n")
    return EXIT_INTERNAL


def _not_usable(error: OSError) -> EfficientADError:
    """A file or folder that the system refuses for a reason that nobody expected there."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "a file"
    shown = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
    words = f"{shown!r}: {error.strerror or error}; give another file or folder"
    return EfficientADError(words)


def _ours(error: ImportError) -> bool:
    """Is it a module of this program that is missing?"""
    return (error.name or "").startswith("efficientad_stream")


def _not_installed(error: ImportError) -> FatalError:
    """A library, or a system library that it needs, is not there."""
    return FatalError(
        f"cannot load {error.name or 'a library'}: {' '.join(str(error).split())}; "
        "install it into this environment (CONTRIBUTING.md, Installation)"
    )
