"""Who and what a recipe is from, as text."""

from __future__ import annotations

import getpass
import os
from pathlib import Path


def shown(path: Path) -> str:
    """The last part of a path for people: what is no text is escaped."""
    text = os.fsencode(path.name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def user() -> str:
    """The login name; a container may know none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
