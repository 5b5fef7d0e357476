"""The part ledger: which frames wait for an answer, and the number of each answer.

Pure: frames and inspections in, numbered inspections out; time is an argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from efficientad_stream.core.errors import FatalError
from efficientad_stream.core.types import FrameMeta, Inspection, Reason, Verdict


class Ledger:
    """One verdict for each frame, in order, none late.

    At its deadline the oldest frame can be answered without its inspection (``overdue``). What is
    found out about it afterwards is ``answered_before``: an observation, no second verdict.

    Args:
        head: the last seq that was ever given.
        deadline_us: from capture to verdict, 0 for none.
    """

    def __init__(self, head: int, deadline_us: int) -> None:
        self._head = head
        self._deadline_us = deadline_us
        self._open: deque[FrameMeta] = deque()
        self._awaited: deque[FrameMeta] = deque()
        """Answered at their deadline, in order, while they were still being inspected."""
        self._admitted = 0

    @property
    def head(self) -> int:
        """The last seq that was given: the last that is recorded."""
        return self._head

    @property
    def open(self) -> tuple[FrameMeta, ...]:
        """Frames that have no verdict yet, in order."""
        return tuple(self._open)

    @property
    def admitted(self) -> int:
        """How many frames have ever been taken in."""
        return self._admitted

    def admit(self, frames: Iterable[FrameMeta]) -> None:
        """Take in frames that from now on are owed a verdict."""
        before = len(self._open)
        self._open.extend(frames)
        self._admitted += len(self._open) - before

    def overdue(self, now_ns: int) -> FrameMeta | None:
        """The oldest open frame if its deadline has come."""
        if self._open and self.left_us(self._open[0], now_ns) == 0:
            return self._open[0]
        return None

    def due_if_captured_by(self, now_ns: int) -> int | None:
        """What was captured by then is overdue now; None without a deadline."""
        return now_ns - 1000 * self._deadline_us if self._deadline_us else None

    def answered_before(self, inspection: Inspection) -> bool:
        """True, once, if the frame had its verdict at its deadline: this one comes too late."""
        if not self._awaited or self._awaited[0] is not inspection.meta:
            return False
        self._awaited.popleft()
        return True

    def settle(self, inspection: Inspection, now_ns: int) -> Inspection:
        """The final verdict on the oldest open frame, with the seq that it gets when ``recorded``.

        At the deadline a score no longer counts: the verdict is INVALID(late). Nothing is used up:
        until a verdict is recorded its frame is owed one, and its seq may go to another verdict.

        Raises:
            FatalError: the inspection is not of the oldest open frame (a defect of this program).
        """
        self._must_be_next(inspection)
        seq = self._head + 1
        if self.left_us(inspection.meta, now_ns) == 0 and inspection.verdict is not Verdict.INVALID:
            return replace(
                inspection,
                verdict=Verdict.INVALID,
                reason=Reason.LATE,
                decided_ns=now_ns,
                seq=seq,
            )
        return replace(inspection, seq=seq)

    def recorded(self, final: Inspection, *, awaited: bool = False) -> None:
        """``final``, as ``settle`` returned it, is in the journal: its frame has its verdict.

        Args:
            final: the verdict.
            awaited: another inspection of the frame is on its way.

        Raises:
            FatalError: it is not the next one (a defect of this program).
        """
        self._must_be_next(final)
        if final.seq != self._head + 1:
            raise FatalError(f"verdict {final.seq} cannot follow {self._head}")
        meta = self._open.popleft()
        self._head = final.seq
        if awaited:
            self._awaited.append(meta)

    def left_us(self, frame: FrameMeta, now_ns: int) -> int | None:
        """Microseconds until the deadline of ``frame``: 0 when it has passed, None without one."""
        if not self._deadline_us:
            return None
        return max(0, self._deadline_us - (now_ns - frame.captured_ns) // 1000)

    def _must_be_next(self, inspection: Inspection) -> None:
        if not self._open or self._open[0] is not inspection.meta:
            raise FatalError(f"verdict on frame {inspection.meta.frame_id} out of order")
