"""The life of a daemon: start, wait for a reason to leave, drain, leave."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Protocol

from efficientad_stream import logs
from efficientad_stream.core.errors import EfficientADError, FatalError
from efficientad_stream.core.types import FrameMeta, Reason
from efficientad_stream.runtime.fanout import Fanout
from efficientad_stream.runtime.notify import READY, STOPPING, notify
from efficientad_stream.runtime.ring import FrameRing
from efficientad_stream.runtime.status import StationStatus
from efficientad_stream.runtime.worker import Worker

LEAVE_S = 1.5
"""From the order to leave until everything is closed; what was sent may linger a little longer."""
CAPTURE_S, DRAIN_S, LAST_BATCH_S, ACKS_S, SERVICE_S = 0.25, 0.4, 0.3, 0.5, 0.4
"""The most that each step takes of it: no more frames, score what is there, end the batch in work,
hear that consumers have everything, end a service."""
LEAST_S = 0.15
"""What a service is given when there is nothing left: enough for one that does not hang."""


class Service(Protocol):
    """Something with a thread of its own that serves until it is stopped."""

    def start(self) -> None:
        """Begin."""

    def stop(self, timeout_s: float) -> bool:
        """End; False if it hangs."""


class Control(Service, Protocol):
    """The control socket as the daemon uses it."""

    def wait_for_acks(self, upto: int, timeout_s: float) -> bool:
        """True when all live consumers have acknowledged ``upto``."""


@dataclass(frozen=True)
class Outcome:
    """Why a daemon leaves: its source ended, it was told to, or a worker died."""

    words: str
    error: BaseException | None = None


class Mailbox:
    """Where workers and signals leave the reason to leave; the first one counts.

    A SimpleQueue, because it may be filled from a signal handler.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Outcome] = SimpleQueue()

    def ended(self) -> None:
        """Every frame of a source that ended has been answered."""
        self._queue.put(Outcome("the source has ended"))

    def died(self, name: str, error: BaseException) -> None:
        """Worker ``name`` died of ``error``; fits ``Worker``'s ``on_failure``."""
        self._queue.put(Outcome(f"{name} died", error))

    def told(self, signum: int) -> None:
        """A signal came."""
        self._queue.put(Outcome(signal.Signals(signum).name))

    def wait(self) -> Outcome:
        """The first reason; looks up once a second, so that no signal is ever stuck."""
        while True:
            with contextlib.suppress(Empty):
                return self._queue.get(timeout=1.0)


class Daemon:
    """Runs the parts of one station until there is a reason to leave.

    Args:
        capture, inspection: the workers that fill and empty ``ring``.
        services: started before the first frame, stopped after the last, in reverse.
        closing: what has no thread is closed so, in this order, whatever happened before.
        hang_up: closes the sockets of the services; done unless one still uses them.
    """

    def __init__(
        self,
        *,
        capture: Worker,
        inspection: Worker,
        ring: FrameRing,
        fanout: Fanout,
        control: Control,
        services: Sequence[Service],
        status: StationStatus,
        mail: Mailbox,
        closing: Sequence[Callable[[], None]],
        hang_up: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._capture, self._inspection = capture, inspection
        self._ring, self._fanout = ring, fanout
        self._control, self._services = control, (control, *services)
        self._status, self._mail = status, mail
        self._closing, self._hang_up = closing, hang_up
        self._clock = clock
        self._log = logs.get()
        self.stuck = False
        """True if a thread did not end in time: its native code would outlive the interpreter."""

    def run(self) -> int:
        """Run to the end and return 0; on SIGINT, SIGTERM and SIGHUP leave in under two seconds.

        A second signal ends the process at once.

        Raises:
            EfficientADError: what a worker died of.
            FatalError: a worker died of something unexpected, or leaving failed.
        """
        with self._signals():
            self._start()
            outcome = self._mail.wait()
            self._log.info("leaving", reason=outcome.words)
            try:
                self._leave()
            except FatalError as error:
                if self._death(outcome) is None:
                    raise
                self._log.error("left in disorder", error=str(error))
        self._log.info("stopped", **self._status.counters())
        death = self._death(outcome)
        if death is None:
            return 0
        if isinstance(death, EfficientADError):
            raise death
        self._log.error(outcome.words, exc_info=death)
        raise FatalError(f"{outcome.words}: {death!r}; the log above says where") from death

    def _start(self) -> None:
        gc.collect()
        gc.freeze()
        for service in self._services:
            service.start()
        self._status.enter("running")
        self._inspection.start()
        self._capture.start()
        notify(READY)

    def _death(self, outcome: Outcome) -> BaseException | None:
        """What a worker died of; the ring ends with its producer, so the end may be heard first."""
        return outcome.error or self._capture.failed or self._inspection.failed

    def _leave(self) -> None:
        """Answer every frame, let the consumers have it, close everything."""
        until = self._clock() + LEAVE_S
        self._status.enter("draining")
        notify(STOPPING)
        hanging = False
        try:
            self._drain()
            left_s = until - self._clock() - SERVICE_S
            self._control.wait_for_acks(self._fanout.head, max(0.0, min(ACKS_S, left_s)))
        finally:
            for service in reversed(self._services):
                left_s = until - self._clock()
                hanging |= not service.stop(max(LEAST_S, min(SERVICE_S, left_s)))
            self.stuck |= hanging
            with ExitStack() as stack:  # the last one entered is the first to be called
                if not hanging:
                    stack.callback(self._hang_up)
                for close in reversed(self._closing):
                    stack.callback(close)

    def _drain(self) -> None:
        """No new frames; score those that are here while time allows; answer the rest."""
        self.stuck |= not self._capture.stop(CAPTURE_S)
        self._ring.close()
        if not self._inspection.join(DRAIN_S):
            self._ring.shed(Reason.STOPPED)
            self._inspection.join(LAST_BATCH_S)
        self.stuck |= not self._inspection.stop(0.0)
        count = self._fanout.close_out(self._waiting())
        if count:
            self._log.warning("frames left without a score", count=count)

    def _waiting(self) -> Iterator[FrameMeta]:
        """What is still in the ring, and will not be inspected any more."""
        while frames := self._ring.take(64, 0, 0.0):
            for frame in frames:
                self._ring.release(frame.slot)
                yield frame.meta

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        got: list[int] = []

        def handle(signum: int, _frame: FrameType | None) -> None:
            if got:
                os._exit(128 + signum)
            got.append(signum)
            self._mail.told(signum)

        asking = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup asks to outlive it
            asking.append(signal.SIGHUP)
        old = {s: signal.signal(s, handle) for s in asking}
        try:
            yield
        finally:
            for signum, handler in old.items():
                signal.signal(signum, handler)
