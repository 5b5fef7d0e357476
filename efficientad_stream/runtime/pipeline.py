"""inspect: the one scoring path. Frames in, inspections out, in order, one for each.

The daemon feeds it from the frame ring; evaluation and replay feed it from files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from efficientad_stream.core.decision import decide
from efficientad_stream.core.errors import EfficientADError, FatalError, FormatError, TransientError
from efficientad_stream.core.placement import Placement
from efficientad_stream.core.types import (
    Batch,
    Frame,
    FrameMeta,
    Inspection,
    Reason,
    Scores,
    Verdict,
)
from efficientad_stream.runtime.active import Active, ActiveRef
from efficientad_stream.runtime.protocols import Ticket

Clock = Callable[[], int]
"""Monotonic nanoseconds."""
OnTrouble = Callable[[FrameMeta, EfficientADError], None]
"""Told why a frame with pixels could not be scored; the verdict only carries the reason."""


def inspect(
    batches: Iterable[Batch],
    active: ActiveRef,
    depth: int,
    clock: Clock,
    on_trouble: OnTrouble = lambda _meta, _error: None,
) -> Iterator[Inspection]:
    """Score ``batches`` with at most ``depth`` tickets in flight.

    What is active is read once a batch, so a batch is judged by one recipe from end to end. Markers
    come out as INVALID with their reason, frames that the recipe cannot score as
    INVALID(unreadable). If the backend fails on a batch, its frames are INVALID(backend) and the
    next batch is tried; if it is broken, so are all frames in flight, and then it ends.

    Raises:
        FatalError: the backend is broken; every frame that was read has been answered before.
    """
    flying: deque[_Flight] = deque()
    try:
        for batch in batches:
            if batch:
                flying.append(_submit(batch, active.get(), on_trouble))
            while flying and (not batch or len(flying) >= depth):
                yield from _land(flying.popleft(), clock, on_trouble)
        while flying:
            yield from _land(flying.popleft(), clock, on_trouble)
    except FatalError:
        for flight in flying:
            yield from _answer(flight, [], clock)
        raise


@dataclass(slots=True)
class _Flight:
    """A batch on its way through the backend."""

    batch: Batch
    active: Active
    refused: dict[int, Reason] = field(default_factory=dict)
    """Positions in the batch that are not scored, and why."""
    ticket: Ticket = None
    failure: TransientError | FatalError | None = None


def _submit(batch: Batch, active: Active, on_trouble: OnTrouble) -> _Flight:
    """Hand what can be scored to the backend."""
    flight = _Flight(batch, active)
    pixels = []
    for position, frame in enumerate(batch):
        if frame.pixels is None:
            flight.refused[position] = frame.meta.loss or Reason.UNREADABLE
            continue
        try:
            active.backend.check(frame.pixels)
            pixels.append(frame.pixels)
        except FormatError as error:
            flight.refused[position] = Reason.UNREADABLE
            on_trouble(frame.meta, error)
    try:
        flight.ticket = active.backend.submit(pixels) if pixels else None
    except (TransientError, FatalError) as error:
        flight.failure = error
    return flight


def _land(flight: _Flight, clock: Clock, on_trouble: OnTrouble) -> Iterator[Inspection]:
    """Collect the scores of ``flight`` and answer its frames."""
    scores: list[Scores] = []
    if flight.ticket is not None:
        try:
            scores = flight.active.backend.collect(flight.ticket)
        except (TransientError, FatalError) as error:
            flight.failure = error
    if flight.failure is not None:
        on_trouble(flight.batch[0].meta, flight.failure)
    yield from _answer(flight, scores, clock)
    if isinstance(flight.failure, FatalError):
        raise flight.failure


def _answer(flight: _Flight, scores: list[Scores], clock: Clock) -> Iterator[Inspection]:
    """One inspection for each frame of ``flight``; frames without a score are INVALID."""
    left = iter(scores)
    for position, frame in enumerate(flight.batch):
        reason = flight.refused.get(position)
        found = next(left, None) if reason is None else None
        yield _inspection(frame, flight.active, found, reason or Reason.BACKEND, clock())


def _inspection(
    frame: Frame, active: Active, scores: Scores | None, otherwise: Reason, now_ns: int
) -> Inspection:
    verdict: Verdict = Verdict.INVALID
    reason: Reason | None = otherwise
    if scores is not None:
        age_us = (now_ns - frame.meta.captured_ns) // 1000
        verdict, reason = decide(scores, active.policy, age_us)
    return Inspection(
        meta=frame.meta,
        verdict=verdict,
        reason=reason,
        threshold=active.policy.threshold,
        recipe=active.recipe,
        scores=scores,
        decided_ns=now_ns,
        slot=frame.slot,
        pixels=frame.pixels,
        placement=_placement(frame, active, scores),
    )


def _placement(frame: Frame, active: Active, scores: Scores | None) -> Placement | None:
    """Where the map lies in the frame, if there is one."""
    if active.geometry is None or frame.pixels is None:
        return None
    if scores is None or scores.anomaly_map is None:
        return None
    height, width = frame.pixels.shape[:2]
    return active.geometry.place(height, width)
