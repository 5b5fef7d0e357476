"""The words of the system as types: frame, batch, scores, inspection, verdict, reason.

Everything here is immutable and knows only numpy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum

import numpy as np
from numpy.typing import NDArray

from efficientad_stream.core.placement import Placement

PixelArray = NDArray[np.uint8]
"""Pixels of a frame: H x W (grey) or H x W x 3 (BGR), uint8."""
MapArray = NDArray[np.float32]
"""An anomaly map: h x w, float32, 0.1 at the b quantile of good parts (paper, section 3.4)."""
MAP_BORDER = 4
"""Positions that a map lacks at each side of the frame, made without padding (paper, appendix)."""
GOOD = "good"
"""The ground truth of a part without a defect."""


class Verdict(IntEnum):
    """The answer to one trigger; the numbers are those of the wire (DESIGN 5)."""

    NONE = 0
    PASS = 1
    FAIL = 2
    INVALID = 3


class Reason(str, Enum):
    """Why a verdict is INVALID; anything INVALID rejects."""

    OVERRUN = "overrun"
    """No free slot in the frame ring: the frame came faster than it could be scored."""
    LOST_FRAME = "lost_frame"
    """A gap in the camera's own frame counter."""
    INCOMPLETE = "incomplete"
    """The frame arrived with pixels missing."""
    UNREADABLE = "unreadable"
    """The frame could not be decoded, or its format is not one that a recipe can score."""
    CAMERA_LOST = "camera_lost"
    """The source is away and a trigger asked all the same."""
    NON_FINITE = "non_finite"
    """The score is not a number."""
    LATE = "late"
    """The deadline passed before the answer was there."""
    BACKEND = "backend"
    """The backend failed on this batch."""
    CALIBRATING = "calibrating"
    """The station collects a calibration set and does not judge."""
    STOPPED = "stopped"
    """The daemon was told to leave before it could score the frame."""
    JOURNAL = "journal"
    """The verdict could not be recorded, so PASS may not be said."""


@dataclass(frozen=True)
class FrameMeta:
    """What is known of one exposure. ``*_ns`` is monotonic, ``captured_at_us`` wall clock UTC."""

    frame_id: int
    captured_ns: int
    captured_at_us: int
    height: int = 0
    width: int = 0
    channels: int = 0
    trigger: int = 0
    encoder: int | None = None
    part_id: str | None = None
    truth: str | None = None
    """Ground truth where the source knows it (simulated, labelled folder): ``GOOD`` or a defect."""
    loss: Reason | None = None
    """Set on a marker: this frame has no pixels worth scoring, and why."""


@dataclass(frozen=True)
class Frame:
    """A frame, or the marker of a lost one, on its way through the pipeline.

    ``pixels`` is a view of ring slot ``slot`` and lives until the slot is released;
    a marker has neither.
    """

    meta: FrameMeta
    pixels: PixelArray | None = None
    slot: int = -1


Batch = tuple[Frame, ...]
"""Frames submitted together, in order, markers included. An empty batch drains the tickets."""


@dataclass(frozen=True)
class Scores:
    """What a backend says of one frame.

    Attributes:
        score: maximum of the combined map (paper, section 3.4); not finite on numerical failure.
        local_score: maximum of the normalised student-teacher map.
        global_score: maximum of the normalised autoencoder-student map.
        anomaly_map: combined map at the networks' own resolution, or None if nobody asked. A
            position that is not inspected has the lowest value there is: that of no difference.
    """

    score: float
    local_score: float
    global_score: float
    anomaly_map: MapArray | None = None


@dataclass(frozen=True)
class Policy:
    """How a station turns scores into verdicts.

    Attributes:
        threshold: a score at or above it fails; finite.
        deadline_us: time allowed from capture to verdict in microseconds, 0 for none.
    """

    threshold: float
    deadline_us: int = 0


@dataclass(frozen=True)
class RecipeId:
    """Which recipe judged: carried by every inspection."""

    name: str
    revision: int
    model_sha256: str


@dataclass(frozen=True)
class Inspection:
    """Frame metadata, scores, verdict and timings of one part.

    ``seq`` is 0 until the station's ledger numbers it. ``pixels`` is the ring's view, valid only
    while the inspection is being delivered. ``placement`` says where the map lies in the frame;
    None: all over it.
    """

    meta: FrameMeta
    verdict: Verdict
    reason: Reason | None
    threshold: float | None
    recipe: RecipeId | None
    scores: Scores | None = None
    decided_ns: int = 0
    seq: int = 0
    slot: int = -1
    pixels: PixelArray | None = field(default=None, repr=False, compare=False)
    placement: Placement | None = None

    @property
    def latency_us(self) -> int:
        """Microseconds from capture to decision."""
        return max(0, (self.decided_ns - self.meta.captured_ns) // 1000)
