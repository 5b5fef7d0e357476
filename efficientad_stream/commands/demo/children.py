"""The processes of a demo: started, listened to, and stopped whatever happens."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from efficientad_stream.core.errors import FatalError

PATIENCE_S = 5.0
"""How long a process may take to leave after it was told to."""
POLL_S = 0.2
CHUNK = 65536


class Child:
    """``python -m efficientad_stream ...`` in a process of its own.

    It is in a session of its own, so that an interrupt at the keyboard reaches only the demo, which
    then stops its children in order. Standard error goes to ``log``.
    """

    def __init__(self, name: str, arguments: Sequence[str], log: Path) -> None:
        self.name, self.log = name, log
        self._buffer = b""
        with log.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "efficientad_stream", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._output, selectors.EVENT_READ)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self.stop()
        self._ready.close()
        self._output.close()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def expect_success(self, timeout_s: float = PATIENCE_S) -> None:
        """Wait for its end, ``timeout_s`` at most.

        Raises:
            FatalError: it did not end, or not well; says its last words.
        """
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise FatalError(f"{self.name} does not end; see {self.log}") from None
        if code:
            last = self.log.read_text("utf-8", "replace").strip().rpartition("\n")[2]
            raise FatalError(
                f"{self.name} ended with code {code}: {last or 'no word'} ({self.log})"
            )

    def lines(self, timeout_s: float) -> Iterator[str]:
        """Lines that it has printed, after at most ``timeout_s``; all that is left if it ended."""
        ended = not self.running
        while self._ready.select(timeout_s):
            data = os.read(self._output.fileno(), CHUNK)
            *whole, self._buffer = (self._buffer + data).split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "replace")
            if not (ended and data):
                return

    def stop(self) -> None:
        """Tell it to leave and wait; who does not listen is killed."""
        if self.running:
            self._process.terminate()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE_S)
