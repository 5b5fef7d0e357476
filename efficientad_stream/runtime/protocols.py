"""The interfaces between the parts: source, backend, observer. Implementations lie above.

A source never retries; it raises, and its supervisor decides (house rule 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from efficientad_stream.core.types import FrameMeta, Inspection, PixelArray, Scores


class SourceEnded(Exception):  # noqa: N818 - an end, not an error
    """A finite source (video file, folder) has delivered its last frame."""


class Writable(Protocol):
    """A slot of the frame ring as its producer sees it."""

    def view(self, height: int, width: int, channels: int) -> PixelArray:
        """The slot's memory shaped as a frame: H x W if ``channels`` is 1, else H x W x channels.

        Grows the slot once if it is too small; steady cameras never allocate after warm-up.
        """


class Source(Protocol):
    """One camera, file or simulator, used by one capture thread."""

    @property
    def paced(self) -> bool:
        """True if frames come by themselves (a camera): a full ring is then an overrun.

        False if the source waits for its consumer (a file read as fast as it is taken).
        """

    def open(self) -> None:
        """Open, or reopen after ``close``.

        Raises:
            ConfigError: it can never work (no such file, wrong format).
            TransientError: it may work later (camera unplugged).
        """

    def grab_into(self, slot: Writable, timeout_s: float) -> FrameMeta | None:
        """Wait for the next frame and write it into ``slot``; None if none came in time.

        A frame that arrived damaged is returned with ``meta.loss`` set.

        Raises:
            SourceEnded: there will be no more frames.
            TransientError: the source has failed and must be reopened.
        """

    def stats(self) -> Mapping[str, int]:
        """Counters for status and metrics."""

    def close(self) -> None:
        """Release the device. May be called twice, and after a failed ``open``."""


Ticket = Any
"""Work in flight; opaque to everybody but the backend that issued it."""


class Backend(Protocol):
    """The networks of one recipe, loaded and warm.

    Whether scores come with their maps is settled when it is built: maps cost time and memory, so
    they are fetched only if an observer needs them.

    ``submit`` and ``collect`` are called by one thread, tickets are collected in the order of
    submission, and a ticket's frames stay untouched until it is collected.
    """

    def check(self, frame: PixelArray) -> None:
        """Can this recipe score ``frame``? Whoever submits has asked before.

        Raises:
            FormatError: no; says what came and what the recipe expects.
        """

    def submit(self, frames: Sequence[PixelArray]) -> Ticket:
        """Begin to score frames of any size (H x W or H x W x 3 BGR, uint8).

        Raises:
            TransientError: these frames could not be scored, the next ones may be.
            FatalError: the engine is broken and must be replaced.
        """

    def collect(self, ticket: Ticket) -> list[Scores]:
        """The scores, one a frame, in order; waits for them.

        Raises:
            TransientError: these frames could not be scored, the next ones may be.
            FatalError: the engine is broken and must be replaced.
        """

    def close(self) -> None:
        """Free the device."""


class Observer(Protocol):
    """A consumer of inspections that may lose some: heatmaps, recorder, preview, metrics.

    It declares what it needs, and only then is it fetched. ``wants`` and ``offer`` are called by
    the inspection thread, in order of ``seq``, after journal and publisher. Neither blocks: the
    observer has a bounded queue and a thread of its own, drops when full, and counts what it
    dropped.
    """

    needs_pixels: bool
    needs_map: bool

    def wants(self, inspection: Inspection) -> bool:
        """True if ``inspection`` is one for this observer; asked before any pixels are lent."""

    def offer(self, inspection: Inspection) -> None:
        """Take note of an inspection that it wants.

        With ``needs_pixels`` the caller has retained ``inspection.slot`` once for this call; the
        observer hands it back by the release function it was made with, dropped or not.
        """

    def stats(self) -> Mapping[str, int]:
        """Counters, ``dropped`` among them."""
