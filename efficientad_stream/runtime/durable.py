"""What a power cut must not undo."""

from __future__ import annotations

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Force the names of the files in ``folder`` to the disk: created, renamed, removed.

    Raises:
        OSError: the disk failed.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
