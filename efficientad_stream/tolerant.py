"""A text stream that never stops the program: what it cannot write at once is counted as lost."""

from __future__ import annotations

import os
import select
import stat
from typing import TextIO

PIECE = 1024
"""Characters written at once: at most 4096 bytes, which a pipe that is ready takes whole."""


class Tolerant:
    """``stream``, whether it is closed, full, or read by nobody any more.

    A terminal that was stopped (Ctrl-S) or a pipe whose reader hangs would block a write for ever,
    and with it whoever had something to say.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._poll = _poll_of(stream)
        self._torn = False
        """The last line that came through has no end."""
        self.lost = 0
        """Calls whose text is not in the stream, or not the whole of it."""

    def write(self, text: str) -> int:
        """Write ``text``, or count it as lost; the characters that were written."""
        done = 0
        if self._torn:
            text = "\n" + text
        try:
            for begin in range(0, len(text), PIECE):
                if self._poll is not None and not self._poll.poll(0):
                    break
                done += self._stream.write(text[begin : begin + PIECE])
                self._stream.flush()
        except (OSError, ValueError):  # gone, full, or closed
            done = min(done, len(text) - 1)
        self.lost += done < len(text)
        self._torn = 0 < done < len(text) or (self._torn and not done)
        return done

    def flush(self) -> None:
        """Nothing is held back: ``write`` has flushed."""


def _poll_of(stream: TextIO) -> select.poll | None:
    """Says whether the file behind ``stream`` takes bytes; None if there is none."""
    try:
        handle = stream.fileno()
    except (OSError, ValueError):
        return None
    poll = select.poll()
    poll.register(handle, select.POLLOUT)
    return poll


def never_wait(handle: int) -> bool:
    """Let a write to ``handle`` fail that would have to wait: libraries write there unasked.

    For pipes and terminals, which are opened anew: whoever shares the old one notices nothing.
    Returns whether that was done.
    """
    if not (stat.S_ISFIFO(os.fstat(handle).st_mode) or os.isatty(handle)):
        return False
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
    try:
        own = os.open(f"/proc/self/fd/{handle}", flags)
    except OSError:  # nobody reads it, or it belongs to somebody else: it stays as it is
        return False
    os.dup2(own, handle)
    os.close(own)
    return True
