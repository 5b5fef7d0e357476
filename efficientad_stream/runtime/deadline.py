"""The keeper of deadlines: what is not answered by then is answered, whatever the engine does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from efficientad_stream.runtime.worker import OnFailure, Worker

SHORTEST_S = 0.0005
"""Between two looks: how late a verdict may be that is said at its deadline."""
LONGEST_S = 0.05


class DeadlineKeeper:
    """Calls ``answer`` whenever the deadline of the oldest frame can have come.

    Args:
        answer: answers what is overdue (``Fanout.answer_overdue``).
        oldest_ns: when the oldest frame that waits for its verdict was captured; None if none does.
        deadline_us: from capture to verdict.
        on_failure: told what the thread died of.
        clock: monotonic nanoseconds.
    """

    def __init__(
        self,
        answer: Callable[[], None],
        oldest_ns: Callable[[], int | None],
        deadline_us: int,
        *,
        on_failure: OnFailure,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._answer = answer
        self._oldest_ns = oldest_ns
        self._deadline_us = deadline_us
        self._clock = clock
        self._worker = Worker("deadlines", self._run, on_failure)

    def start(self) -> None:
        """Begin to look."""
        self._worker.start()

    def stop(self, timeout_s: float) -> bool:
        """End; False if it hangs."""
        return self._worker.stop(timeout_s)

    def pause_s(self) -> float:
        """Until the next look: a frame that is not here yet has its whole deadline before it."""
        left_us = self._deadline_us
        oldest_ns = self._oldest_ns()
        if oldest_ns is not None:
            left_us -= (self._clock() - oldest_ns) // 1000
        return min(max(left_us / 1e6, SHORTEST_S), LONGEST_S)

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(self.pause_s()):
            self._answer()
