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

    Args:
        head: the last seq that was ever given.
        deadline_us: from capture to verdict, 0 for none.
    """

    def __init__(self, head: int, deadline_us: int) -> None:
        self._head = head
        self._deadline_us = deadline_us
        self._open: deque[FrameMeta] = deque()

    @property
    def head(self) -> int:
        """The last seq that was given: the last that is recorded."""
        return self._head

    @property
    def open(self) -> tuple[FrameMeta, ...]:
        """Frames that have no verdict yet, in order."""
        return tuple(self._open)

    def admit(self, frames: Iterable[FrameMeta]) -> None:
        """Take in frames that from now on are owed a verdict."""
        self._open.extend(frames)

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

    def recorded(self, final: Inspection) -> None:
        """``final``, as ``settle`` returned it, is in the journal: its frame has its verdict.

        Raises:
            FatalError: it is not the next one (a defect of this program).
        """
        self._must_be_next(final)
        if final.seq != self._head + 1:
            raise FatalError(f"verdict {final.seq} cannot follow {self._head}")
        self._open.popleft()
        self._head = final.seq

    def left_us(self, frame: FrameMeta, now_ns: int) -> int | None:
        """Microseconds until the deadline of ``frame``: 0 when it has passed, None without one."""
        if not self._deadline_us:
            return None
        return max(0, self._deadline_us - (now_ns - frame.captured_ns) // 1000)

    def _must_be_next(self, inspection: Inspection) -> None:
        if not self._open or self._open[0] is not inspection.meta:
            raise FatalError(f"verdict on frame {inspection.meta.frame_id} out of order")
