"""ZeroMQ contract v1: message <-> bytes (docs/contract.md).

A message is ``topic | header (32 bytes) | JSON body | [image]``. Everything here is pure. Decoding
is strict in what a verdict depends on and blind to fields that it does not know.
"""

from __future__ import annotations

import math
import struct
from typing import Any, TypeVar

import msgspec

from efficientad_stream.core.messages import (
    DECISION,
    ENCODING_JSON,
    HEADER_BYTES,
    HEARTBEAT,
    HEATMAP,
    MAX_BODY,
    MAX_U32,
    NAME_CHARS,
    NO_DEADLINE,
    PART_ID_CHARS,
    VERSION,
    Decision,
    DecisionBody,
    Header,
    Heartbeat,
    HeartbeatBody,
    Heatmap,
    HeatmapBody,
    Message,
    WireError,
)
from efficientad_stream.core.types import Inspection, Verdict

_HEADER = struct.Struct("<BBBBIQIIQ")
_KINDS = {DECISION: "dec", HEARTBEAT: "hb", HEATMAP: "hm"}


def topic(kind: int, station: str) -> bytes:
    """The topic of messages of ``kind`` (DECISION, ...); the last dot keeps st1 apart from st10."""
    return f"es1.{_KINDS[kind]}.{station}.".encode()


def prefix(kind: int) -> bytes:
    """What to subscribe to for messages of ``kind`` from whatever station."""
    return f"es1.{_KINDS[kind]}.".encode()


def pack_header(header: Header) -> bytes:
    """The 32 bytes of ``header``.

    Raises:
        WireError: a number does not fit its field.
    """
    kind, verdict, seq, epoch, trigger, deadline_us, published_us = header
    try:
        return _HEADER.pack(
            VERSION, kind, ENCODING_JSON, verdict, seq, epoch, trigger, deadline_us, published_us
        )
    except struct.error as error:
        raise WireError(f"header: {error} ({header})") from error


def unpack_header(data: bytes) -> Header:
    """The header in ``data``.

    Raises:
        WireError: wrong length, version, type, encoding or verdict.
    """
    if len(data) != HEADER_BYTES:
        raise WireError(f"header: {len(data)} bytes instead of {HEADER_BYTES}")
    version, kind, encoding, verdict, *rest = _HEADER.unpack(data)
    if version != VERSION:
        raise WireError(f"header: version {version}, this reader knows {VERSION}")
    if kind not in _KINDS:
        raise WireError(f"header: unknown type {kind}")
    if encoding != ENCODING_JSON:
        raise WireError(f"header: unknown encoding {encoding}")
    if verdict > Verdict.INVALID:
        raise WireError(f"header: unknown verdict {verdict}")
    return Header(kind, Verdict(verdict), *rest)


def number(value: float) -> float | None:
    """``value`` as JSON can carry it: None if it is not finite, and never one of numpy's."""
    value = float(value)
    return value if math.isfinite(value) else None


def line_count(trigger: int) -> int:
    """The line's trigger count as the header carries it: modulo 2^32, as such counters wrap."""
    return int(trigger) & MAX_U32


def encode_decision(
    inspection: Inspection,
    station: str,
    epoch: int,
    published_us: int,
    deadline_us: int | None,
) -> Message:
    """The message that publishes ``inspection``.

    Args:
        inspection: numbered (``seq`` >= 1) and decided.
        station: name of the station.
        epoch: identity of the journal.
        published_us: UTC microseconds.
        deadline_us: what is left of the deadline, None if the station has none.

    Raises:
        WireError: not numbered, not decided, or a PASS that its own numbers do not carry.
    """
    meta, scores, recipe = inspection.meta, inspection.scores, inspection.recipe
    body = DecisionBody(
        station=station,
        frame_id=int(meta.frame_id),
        part_id=None if meta.part_id is None else _text(meta.part_id)[-PART_ID_CHARS:],
        encoder=None if meta.encoder is None else int(meta.encoder),
        score=None if scores is None else number(scores.score),
        threshold=None if inspection.threshold is None else number(inspection.threshold),
        reason=None if inspection.reason is None else inspection.reason.value,
        recipe=None if recipe is None else _text(recipe.name)[:NAME_CHARS],
        recipe_rev=None if recipe is None else recipe.revision,
        model_sha256=None if recipe is None else recipe.model_sha256,
        captured_at=max(0, int(meta.captured_at_us)),
        latency_us=inspection.latency_us,
        local_score=None if scores is None else number(scores.local_score),
        global_score=None if scores is None else number(scores.global_score),
        truth=None if meta.truth is None else _text(meta.truth)[:NAME_CHARS],
    )
    header = Header(
        type=DECISION,
        verdict=inspection.verdict,
        seq=inspection.seq,
        epoch=epoch,
        trigger=line_count(meta.trigger),
        deadline_us=_deadline(deadline_us),
        published_us=published_us,
    )
    _check_decision(header, body)
    return Message(pack_header(header), _encode_body(body))


def encode_heartbeat(header: Header, body: HeartbeatBody) -> Message:
    """The message of a heartbeat; ``header.seq`` is the head."""
    return Message(pack_header(header), _encode_body(body))


def encode_heatmap(header: Header, body: HeatmapBody) -> Message:
    """Header and body of a heatmap; the image is sent behind them as a frame of its own."""
    return Message(pack_header(header), _encode_body(body))


def decode_decision(header: bytes, body: bytes) -> Decision:
    """A decision as received or read from a journal.

    Raises:
        WireError: malformed, or a PASS that its own numbers do not carry.
    """
    head = _header_of(DECISION, header)
    content = _decode_body(body, _DECISIONS, "decision")
    _check_decision(head, content)
    return Decision(head, content)


def decode_heartbeat(header: bytes, body: bytes) -> Heartbeat:
    """A heartbeat as received.

    Raises:
        WireError: malformed.
    """
    head = _header_of(HEARTBEAT, header)
    content = _decode_body(body, _HEARTBEATS, "heartbeat")
    if content.head != head.seq:
        raise WireError(f"heartbeat: head {content.head} in the body, {head.seq} in the header")
    return Heartbeat(head, content)


def decode_heatmap(header: bytes, body: bytes, image: bytes) -> Heatmap:
    """A heatmap as received.

    Raises:
        WireError: malformed, or without an image.
    """
    if not image:
        raise WireError("heatmap: the image is missing")
    head = _header_of(HEATMAP, header)
    return Heatmap(head, _decode_body(body, _HEATMAPS, "heatmap"), image)


Body = TypeVar("Body")
_DECISIONS = msgspec.json.Decoder(DecisionBody)
_HEARTBEATS = msgspec.json.Decoder(HeartbeatBody)
_HEATMAPS = msgspec.json.Decoder(HeatmapBody)
_ENCODER = msgspec.json.Encoder()


def _header_of(kind: int, data: bytes) -> Header:
    header = unpack_header(data)
    if header.type != kind:
        raise WireError(f"header: type {header.type} where {kind} ({_KINDS[kind]}) belongs")
    return header


def _check_decision(header: Header, body: DecisionBody) -> None:
    """What must hold between the parts of a decision, on the way out and on the way in."""
    if header.seq == 0:
        raise WireError("decision: seq 0, it has not been numbered")
    if header.verdict is Verdict.NONE:
        raise WireError(f"decision {header.seq}: no verdict")
    if header.verdict is Verdict.PASS:
        score, threshold = body.score, body.threshold
        if body.reason is not None or score is None or threshold is None or score >= threshold:
            raise WireError(
                f"decision {header.seq}: PASS with score {score}, threshold {threshold}, "
                f"reason {body.reason}"
            )


def _decode_body(data: bytes, decoder: msgspec.json.Decoder[Body], what: str) -> Body:
    if len(data) > MAX_BODY:
        raise WireError(f"{what}: body of {len(data)} bytes, at most {MAX_BODY} are allowed")
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(f"{what}: {error}") from error
    except RecursionError as error:  # deep nesting, also inside fields that nobody asked for
        raise WireError(f"{what}: JSON nested too deep") from error


def _encode_body(body: Any) -> bytes:
    data = _ENCODER.encode(body)
    if len(data) > MAX_BODY:
        raise WireError(f"body of {len(data)} bytes, at most {MAX_BODY} are allowed")
    return data


def _deadline(left_us: int | None) -> int:
    return NO_DEADLINE if left_us is None else min(max(int(left_us), 0), NO_DEADLINE - 1)


def _text(value: str) -> str:
    """``value`` without lone surrogates (file names may have them), which JSON cannot carry."""
    return value.encode("utf-8", "replace").decode()
