"""Forces written records to the disk, in batches, beside the thread that writes them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from efficientad_stream.core.errors import FatalError
from efficientad_stream.runtime.durable import sync_folder
from efficientad_stream.runtime.worker import Worker

LOOK_S = 0.2
JOIN_S = 10.0


class Syncer:
    """Owns the descriptors of segments that are full, and syncs the one that is being written.

    What it fails with is raised by every later call on the writer's thread: the kernel reports a
    write that it lost only once, so no sync that succeeds afterwards means anything.
    """

    def __init__(self, folder: Path, interval_s: float) -> None:
        self._folder = folder
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._current: int | None = None
        self._full: list[int] = []
        self._removed: int | None = None
        """A descriptor whose file has lost its name; it counts if it is still the current one."""
        self._error: BaseException | None = None
        self._syncs = 0
        self._worker = Worker("journal-sync", self._run, self._on_failure)
        if interval_s > 0:
            self._worker.start()

    @property
    def syncs(self) -> int:
        """How often records were forced to the disk."""
        return self._syncs

    def written(self, fd: int) -> None:
        """A record was written to ``fd``; with an interval of 0 it is on the disk on return.

        Raises:
            FatalError: the disk failed just now; see ``check`` for what happens in the background.
        """
        self._current = fd
        if self._interval_s > 0:
            self._wake.set()
        else:
            self._flush_here()
        self._notice_removal()
        if self._interval_s == 0:
            self.check()

    def check(self) -> None:
        """Raise FatalError if a sync has ever failed."""
        if self._error is not None:
            raise FatalError(f"journal {self._folder}: cannot sync: {self._error}")

    def full(self, fd: int) -> None:
        """``fd`` gets no more records: sync and close it when there is time."""
        with self._lock:
            self._current = self._removed = None
            self._full.append(fd)
        self._wake.set()

    def close(self) -> None:
        """Stop the thread, sync and close everything.

        Raises:
            FatalError: the disk failed, or does not come back.
        """
        self._wake.set()
        if not self._worker.stop(JOIN_S):
            raise FatalError(f"journal {self._folder}: the disk has not answered for {JOIN_S:g} s")
        self._notice_removal()
        if self._current is not None:
            self.full(self._current)
        self._flush_here()
        self.check()

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            if self._wake.wait(LOOK_S):
                self._wake.clear()
                self._flush()
                stop.wait(self._interval_s)

    def _notice_removal(self) -> None:
        """Somebody removed the file that is being written: what is in it proves nothing."""
        if self._removed is not None and self._removed == self._current:
            gone = FileNotFoundError("the file that is being written was removed")
            self._error = self._error or gone

    def _flush_here(self) -> None:
        try:
            self._flush()
        except OSError as error:
            self._error = self._error or error

    def _flush(self) -> None:
        """Only ever one at a time: on the worker, or on the writer where there is no worker."""
        with self._lock:
            current, full, self._full = self._current, self._full, []
        for fd in full:
            os.fdatasync(fd)
            os.close(fd)
        if full:
            sync_folder(self._folder)
        if current is not None:
            os.fdatasync(current)
            if os.fstat(current).st_nlink == 0:
                self._removed = current
        self._syncs += 1

    def _on_failure(self, _name: str, error: BaseException) -> None:
        self._error = error
