"""The errors that a user can meet: one root, four kinds, each with its exit code.

A message is one line: what was wrong, where (file, key, line), and what to do about it.
"""

from __future__ import annotations


class EfficientADError(Exception):
    """Root of all errors raised on purpose; ``exit_code`` is what the command line ends with."""

    exit_code = 1


class ConfigError(EfficientADError):
    """The configuration or a command-line argument is wrong; nothing was started."""

    exit_code = 2


class ArtifactError(EfficientADError):
    """A recipe, teacher, journal or data set is missing, damaged or not what it says it is."""

    exit_code = 3


class FatalError(EfficientADError):
    """The daemon cannot go on: a worker died, a port is taken, a device is gone for good."""

    exit_code = 4


class TransientError(EfficientADError):
    """Something outside failed and may come back; the supervisor of a source retries."""

    exit_code = 5


class FormatError(EfficientADError):
    """A frame is not one that the active recipe can score: its depth, shape or colour."""

    exit_code = 3
