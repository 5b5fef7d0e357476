"""The capture thread: drains one source into the frame ring, and supervises it.

The source raises, only this supervisor retries: close, pause, open again, with growing pauses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum

from efficientad_stream import logs
from efficientad_stream.core.errors import TransientError
from efficientad_stream.core.types import FrameMeta, Reason
from efficientad_stream.runtime.protocols import Source, SourceEnded
from efficientad_stream.runtime.ring import FrameRing
from efficientad_stream.runtime.slot import Slot

GRAB_S = 0.1
"""Longest wait for a frame before the stop event is looked at."""
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
MAX_GAP = 10_000
"""A larger step of the camera's counter is a counter that was reset, not a loss."""


class CameraState(str, Enum):
    """How a source is doing."""

    CONNECTING = "connecting"
    STREAMING = "streaming"
    LOST = "lost"
    ENDED = "ended"


class Capture:
    """Fills ``ring`` from ``source``; ``run`` is the body of its worker.

    A source that is paced is always drained: a frame that finds no free slot becomes a marker and
    its memory takes the next frame. One that is not waits for a free slot first. A gap in the
    counter of the source becomes markers before the frame that showed it. Counters that wrap are
    unwrapped by their source.

    Args:
        source: not open yet.
        ring: this is its only producer; closed at the end, whatever the end is.
        pause: waits so many seconds or until the event is set.
    """

    def __init__(
        self,
        source: Source,
        ring: FrameRing,
        pause: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        self._source = source
        self._ring = ring
        self._pause = pause
        self._log = logs.get()
        self._overruns = logs.RateLimited("no free slot, frame not scored")
        self._gaps = logs.RateLimited("gap in the camera's frame counter")
        self._state = CameraState.CONNECTING
        self._hand = self._first_slot()
        self._last: FrameMeta | None = None
        self._frames = self._missing = self._reconnects = 0

    @property
    def state(self) -> CameraState:
        """How the source is doing now."""
        return self._state

    @property
    def overruns(self) -> int:
        """Frames that found no free slot."""
        return self._overruns.total

    def stats(self) -> Mapping[str, int]:
        """Frames that came, frames missing between them, overruns, reconnects; the source's own."""
        own = {f"source_{name}": count for name, count in self._source.stats().items()}
        return {
            "captured": self._frames,
            "missing": self._missing,
            "overruns": self.overruns,
            "reconnects": self._reconnects,
            **own,
        }

    def run(self, stop: threading.Event) -> None:
        """Deliver frames until the source ends or ``stop`` is set; then close source and ring.

        Raises:
            ConfigError: the source can never work.
            FatalError: nobody takes frames out of the ring.
        """
        try:
            self._supervise(stop)
            self._enter(CameraState.ENDED)
        finally:
            self._ring.abandon(self._hand)
            self._ring.close()
            self._overruns.flush()
            self._gaps.flush()

    def _first_slot(self) -> Slot:
        slot = self._ring.acquire()
        if slot is None:
            raise ValueError("the ring has another producer")
        return slot

    def _supervise(self, stop: threading.Event) -> None:
        pause_s = FIRST_PAUSE_S
        while not stop.is_set():
            before = self._frames
            try:
                self._stream(stop)
            except SourceEnded:
                return
            except TransientError as error:
                self._enter(CameraState.LOST, error=str(error))
                pause_s = FIRST_PAUSE_S if self._frames > before else pause_s
                self._pause(stop, pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                self._reconnects += 1

    def _stream(self, stop: threading.Event) -> None:
        """From opening the source to closing it, once."""
        try:
            self._source.open()
            self._enter(CameraState.STREAMING)
            self._last = None
            while not stop.is_set():
                if not self._source.paced and not self._ring.wait_free(GRAB_S):
                    continue
                meta = self._source.grab_into(self._hand, GRAB_S)
                if meta is not None:
                    self._deliver(meta)
        finally:
            self._source.close()

    def _deliver(self, meta: FrameMeta) -> None:
        """Pass on the frame in hand, or what became of it, and have a slot in hand again."""
        self._frames += 1
        if self._last is not None:
            self._mark_gap(self._last, meta)
        self._last = meta
        if meta.loss is not None:
            self._ring.mark(meta)
            return
        spare = self._ring.acquire()
        if spare is None:
            self._ring.mark(replace(meta, loss=Reason.OVERRUN))
            self._overruns.hit(frame_id=meta.frame_id)
        else:
            self._ring.commit(self._hand, meta)
            self._hand = spare

    def _mark_gap(self, last: FrameMeta, meta: FrameMeta) -> None:
        """Markers for what the counter says was lost between ``last`` and ``meta``."""
        missing = meta.frame_id - last.frame_id - 1
        if missing == 0:
            return
        if not 0 < missing <= MAX_GAP:
            self._log.warning("frame counter jumped", after=last.frame_id, to=meta.frame_id)
            return
        counted = meta.trigger - last.trigger == missing + 1
        first = FrameMeta(
            frame_id=last.frame_id + 1,
            captured_ns=meta.captured_ns,
            captured_at_us=meta.captured_at_us,
            trigger=last.trigger + 1 if counted else 0,
            loss=Reason.LOST_FRAME,
        )
        self._ring.mark(first, missing)
        self._missing += missing
        self._gaps.hit(after=last.frame_id, missing=missing)

    def _enter(self, state: CameraState, **why: str) -> None:
        """One log line per change."""
        if state is not self._state:
            self._state = state
            say = self._log.warning if state is CameraState.LOST else self._log.info
            say(f"camera {state.value}", **why)
