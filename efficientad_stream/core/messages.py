"""The words of ZeroMQ contract v1: header, bodies and their limits (docs/contract.md).

``wire`` turns them into bytes and back.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from efficientad_stream.core.errors import EfficientADError
from efficientad_stream.core.types import Verdict

VERSION = 1
ENCODING_JSON = 1
DECISION, HEARTBEAT, HEATMAP = 1, 2, 3
NO_DEADLINE = 0xFFFFFFFF
"""``deadline_us`` of a station that has no deadline, and of messages that are not decisions."""
MAX_U32 = 0xFFFFFFFF
MAX_U64 = 0xFFFFFFFFFFFFFFFF
MAX_BODY = 32 * 1024
PART_ID_CHARS = 64
"""A longer part_id loses its beginning: what tells parts apart is at the end."""
NAME_CHARS = 128
HEADER_BYTES = 32

Station = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,32}\Z")]
Count = Annotated[int, Meta(ge=0)]
ShortText = Annotated[str, Meta(max_length=128)]


class WireError(EfficientADError):
    """A message that is not of this contract; a gate that meets one rejects."""


class Header(NamedTuple):
    """The 32 bytes in front of every body; little-endian ``<BBBBIQIIQ``."""

    type: int
    verdict: Verdict
    seq: int
    """Of a decision and its heatmap: the decision's; of a heartbeat: the head (0: none yet)."""
    epoch: int
    trigger: int = 0
    deadline_us: int = NO_DEADLINE
    """What was left of the deadline at publish; 0: nothing."""
    published_us: int = 0
    """UTC microseconds, for people."""


class Message(NamedTuple):
    """Header and body as bytes."""

    header: bytes
    body: bytes


class DecisionBody(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a decision; ``captured_at`` in UTC microseconds; null: there is nothing to say."""

    station: Station
    frame_id: int
    part_id: Annotated[str, Meta(max_length=PART_ID_CHARS)] | None
    encoder: int | None
    score: float | None
    threshold: float | None
    reason: ShortText | None
    recipe: str | None
    recipe_rev: Count | None
    model_sha256: str | None
    captured_at: Count
    latency_us: Count
    local_score: float | None = None
    global_score: float | None = None
    truth: str | None = None
    """Ground truth where the source knows it: "good" or the name of a defect."""


class HeartbeatBody(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a heartbeat."""

    station: Station
    state: ShortText
    """"starting", "running", "draining" or "stopped"; the last heartbeat of a run says stopped."""
    head: Count
    counters: dict[str, int] = {}


class HeatmapBody(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a heatmap; the image follows as a frame of its own and covers the whole frame.

    In a ``png8`` a grey value g stands for the map value
    ``scale_min + g / 255 * (scale_max - scale_min)``, limited at both ends.
    """

    station: Station
    frame_id: int
    width: Annotated[int, Meta(ge=1)]
    height: Annotated[int, Meta(ge=1)]
    format: Literal["jpeg", "png8"]
    scale_min: float
    scale_max: float
    score: float | None
    threshold: float | None


class Decision(NamedTuple):
    """A decoded decision."""

    header: Header
    body: DecisionBody


class Heartbeat(NamedTuple):
    """A decoded heartbeat."""

    header: Header
    body: HeartbeatBody


class Heatmap(NamedTuple):
    """A decoded heatmap; ``image`` is the file as encoded."""

    header: Header
    body: HeatmapBody
    image: bytes
