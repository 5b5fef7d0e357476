"""Time as sources see it, and frames at a rate on an absolute schedule: errors do not add up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

SECOND_NS = 1_000_000_000


def _utc_us() -> int:
    return time.time_ns() // 1000


@dataclass(frozen=True)
class Clocks:
    """Time as one value, so that tests can bring their own.

    Attributes:
        ns: monotonic clock, nanoseconds.
        sleep: waits so many seconds.
        wall_us: wall clock, UTC microseconds, for people.
    """

    ns: Callable[[], int] = time.monotonic_ns
    sleep: Callable[[float], None] = time.sleep
    wall_us: Callable[[], int] = _utc_us

    def now(self) -> tuple[int, int]:
        """(monotonic nanoseconds, UTC microseconds): the stamps of a frame."""
        return self.ns(), self.wall_us()


REAL = Clocks()
"""Those of this machine."""


class Pacer:
    """Says when the next frame is due.

    Args:
        fps: frames a second; 0: always due.
        clocks: to wait by.
    """

    def __init__(self, fps: float, clocks: Clocks = REAL) -> None:
        self._fps = fps
        self._clocks = clocks
        self._start_ns: int | None = None
        self._count = 0

    def restart(self) -> None:
        """The next frame is due at once, and the schedule begins with it."""
        self._start_ns = None
        self._count = 0

    def wait(self, timeout_s: float) -> bool:
        """Wait for the next frame's moment, ``timeout_s`` at most; True if it has come.

        The frame is then taken as delivered. Whoever falls a second behind (the process was
        stopped, the disk slept) goes on from now instead of delivering a burst.
        """
        if not self._fps:
            return True
        now = self._clocks.ns()
        if self._start_ns is None:
            self._start_ns = now
        left_ns = self._due_ns(self._start_ns) - now
        if left_ns > 0:
            self._clocks.sleep(min(left_ns / SECOND_NS, timeout_s))
        if left_ns > timeout_s * SECOND_NS:
            return False
        if left_ns < -SECOND_NS:
            self._start_ns, self._count = now, 0
        self._count += 1
        return True

    def _due_ns(self, start_ns: int) -> int:
        return start_ns + round(self._count * SECOND_NS / self._fps)
