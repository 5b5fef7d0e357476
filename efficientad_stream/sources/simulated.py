"""Source ``simulated``: a rendered line with seeded defects, whose truth is known.

Behaves as a camera does: with a rate it keeps an absolute schedule, without one it waits for its
consumer. Closing and opening again goes on with the next part.
"""

from __future__ import annotations

from collections.abc import Mapping

from efficientad_stream.config import SimulatedSource as Settings
from efficientad_stream.core.types import GOOD, FrameMeta
from efficientad_stream.runtime.protocols import SourceEnded, Writable
from efficientad_stream.sources.pacing import REAL, Clocks, Pacer
from efficientad_stream.sources.rendering.line import Line


class SimulatedSource:
    """Delivers part after part of a rendered line (``runtime.protocols.Source``).

    Args:
        settings: size, rate, number of parts, share of defects, seed.
        clocks: to pace and to stamp frames by.
    """

    def __init__(self, settings: Settings, clocks: Clocks = REAL) -> None:
        self._settings = settings
        self._clocks = clocks
        self._pacer = Pacer(settings.fps, clocks)
        self._line: Line | None = None
        self._index = 0
        self._defective = 0

    @property
    def paced(self) -> bool:
        """True if parts come at a rate, whether or not anybody is ready for them."""
        return self._settings.fps > 0

    def open(self) -> None:
        """Draw what all parts share, and start the schedule with the next part."""
        if self._line is None:
            self._line = Line(self._settings)
        self._pacer.restart()

    def grab_into(self, slot: Writable, timeout_s: float) -> FrameMeta | None:
        """Wait until the next part is due and render it into ``slot``; None if it is not yet.

        Raises:
            SourceEnded: the configured number of parts has been delivered.
            RuntimeError: the source is not open.
        """
        if self._line is None:
            raise RuntimeError("the simulated source is not open")
        if self._settings.parts and self._index >= self._settings.parts:
            raise SourceEnded
        if not self._pacer.wait(timeout_s):
            return None
        captured_ns, captured_at_us = self._clocks.now()
        height, width = self._settings.height, self._settings.width
        channels = 1 if self._settings.grey else 3
        truth = self._line.render_into(self._index, slot.view(height, width, channels))
        meta = FrameMeta(
            frame_id=self._index + 1,
            captured_ns=captured_ns,
            captured_at_us=captured_at_us,
            height=height,
            width=width,
            channels=channels,
            part_id=f"sim-{self._index:06d}",
            truth=truth,
        )
        self._defective += truth != GOOD
        self._index += 1
        return meta

    def stats(self) -> Mapping[str, int]:
        """Parts delivered, and how many of them were defective."""
        return {"frames": self._index, "defective": self._defective}

    def close(self) -> None:
        """Free the pictures; the part that would have come next is still the next."""
        self._line = None
