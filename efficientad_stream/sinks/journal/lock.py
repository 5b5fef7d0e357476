"""One daemon a journal, and what the last one said about how it left."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from efficientad_stream.core.errors import ArtifactError, FatalError

NAME = "lock"
NOTE_BYTES = 256
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Content of the lock file: who writes, or wrote.

    ``boot`` tells a machine that was switched off from a daemon that was killed: what the kernel
    held when the daemon died is still there after the one and not after the other.
    """

    boot: str
    closed_at: int | None = None
    """The head at which the journal was closed; None while it is open, and after a kill."""
    epoch: int = 0


class JournalLock:
    """Holds the lock file of a journal; the kernel lets go of it when the process ends."""

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            FatalError: another process has it, or the folder cannot be written.
        """
        self._path = folder / NAME
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise FatalError(f"journal {self._path}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise FatalError(
                f"journal {folder}: another daemon is writing it; each station needs its own "
                f"journal.path"
            ) from error

    def read(self) -> Note | None:
        """What the last writer left; None in a new journal.

        Raises:
            ArtifactError: the lock file holds something else.
        """
        return _note(self._path, os.pread(self._fd, NOTE_BYTES, 0))

    def write(self, note: Note) -> None:
        """Leave ``note``, on the disk."""
        # always the same length, in one write: an old, longer note can leave nothing behind it
        os.pwrite(self._fd, msgspec.json.encode(note).ljust(NOTE_BYTES - 1) + b"\n", 0)
        os.fsync(self._fd)

    def release(self) -> None:
        """Let go."""
        os.close(self._fd)


def last_note(folder: Path) -> Note | None:
    """What the last writer of the journal in ``folder`` left, read without its lock.

    Raises:
        ArtifactError: the lock file cannot be read, or holds something else.
    """
    path = folder / NAME
    try:
        return _note(path, path.read_bytes()[:NOTE_BYTES])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArtifactError(f"journal {path}: {error.strerror}") from error


def _note(path: Path, text: bytes) -> Note | None:
    if not text.strip():
        return None
    try:
        return msgspec.json.decode(text, type=Note)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"journal {path}: not the lock file of a journal ({error}); remove it, and the station "
            f"begins a new epoch"
        ) from error


def boot_id() -> str:
    """The kernel's name for the time since it was started."""
    return BOOT_ID.read_text().strip()
