from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficientad_stream.core import dialogue, wire
from efficientad_stream.core.messages import (
    DECISION,
    HEADER_BYTES,
    HEARTBEAT,
    HEATMAP,
    MAX_U32,
    MAX_U64,
    NO_DEADLINE,
    Header,
    HeartbeatBody,
    HeatmapBody,
    Message,
    WireError,
)
from efficientad_stream.core.types import (
    FrameMeta,
    Inspection,
    Reason,
    RecipeId,
    Scores,
    Verdict,
)

U32 = st.integers(0, MAX_U32)
U64 = st.integers(0, MAX_U64)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.one_of(st.none(), st.text(max_size=200))


def inspection(verdict: Verdict = Verdict.PASS, score: float = 0.25, **meta: Any) -> Inspection:
    return Inspection(
        meta=FrameMeta(
            frame_id=7, captured_ns=1_000_000, captured_at_us=1_700_000_000_000_000, **meta
        ),
        verdict=verdict,
        reason=Reason.NON_FINITE if verdict is Verdict.INVALID else None,
        threshold=0.5,
        recipe=RecipeId("tile", 3, "ab" * 32),
        scores=Scores(score=score, local_score=0.5, global_score=0.0),
        decided_ns=6_000_000,
        seq=41,
    )


def encoded(what: Inspection, deadline_us: int | None = None) -> Message:
    return wire.encode_decision(what, "st1", 99, 1_700_000_000_000_123, deadline_us)


def test_header_is_the_32_bytes_of_the_contract() -> None:
    header = Header(DECISION, Verdict.FAIL, 258, 2**40, 513, 7, 2**50)
    assert wire.pack_header(header) == bytes.fromhex(
        "0101010202010000000000000001000001020000070000000000000000000400"
    )


def test_a_decision_carries_everything_about_its_inspection() -> None:
    message = encoded(inspection(trigger=5, encoder=-12, part_id="P1", truth="crack"), 800)
    decision = wire.decode_decision(*message)
    assert decision.header == Header(DECISION, Verdict.PASS, 41, 99, 5, 800, 1_700_000_000_000_123)
    assert msgspec.to_builtins(decision.body) == {
        "station": "st1",
        "frame_id": 7,
        "part_id": "P1",
        "encoder": -12,
        "score": 0.25,
        "threshold": 0.5,
        "reason": None,
        "recipe": "tile",
        "recipe_rev": 3,
        "model_sha256": "ab" * 32,
        "captured_at": 1_700_000_000_000_000,
        "latency_us": 5000,
        "local_score": 0.5,
        "global_score": 0.0,
        "truth": "crack",
    }


@given(
    seq=st.integers(1, MAX_U32),
    verdict=st.sampled_from([Verdict.FAIL, Verdict.INVALID]),
    score=st.floats(),
    reason=st.sampled_from([None, *Reason]),
    part_id=TEXT,
    truth=TEXT,
    trigger=st.integers(-10, 2**40),
    deadline_us=st.one_of(st.none(), st.integers(-(2**40), 2**40)),
    epoch=U64,
)
def test_any_inspection_survives_the_round_trip(
    *,
    seq: int,
    verdict: Verdict,
    score: float,
    reason: Reason | None,
    part_id: str | None,
    truth: str | None,
    trigger: int,
    deadline_us: int | None,
    epoch: int,
) -> None:
    meta = FrameMeta(1, 0, 0, trigger=trigger, part_id=part_id, truth=truth)
    scores = Scores(score=score, local_score=score, global_score=1.0)
    what = Inspection(meta, verdict, reason, None, None, scores, seq=seq)
    header, body = wire.decode_decision(*wire.encode_decision(what, "a-b_9", epoch, 5, deadline_us))
    assert (header.seq, header.verdict, header.epoch) == (seq, verdict, epoch)
    assert header.trigger == trigger % 2**32
    assert header.deadline_us == (
        NO_DEADLINE if deadline_us is None else min(max(deadline_us, 0), NO_DEADLINE - 1)
    )
    assert body.score == (score if math.isfinite(score) else None)
    assert body.part_id == (None if part_id is None else part_id[-64:])
    assert body.truth == (None if truth is None else truth[:128])
    assert body.reason == (reason.value if reason else None)


def test_numbers_of_numpy_and_names_that_are_not_utf8_are_sent() -> None:
    what = inspection(score=float(np.float32(0.1)), part_id="x\udcff/" + "é" * 63)
    decision = wire.decode_decision(*encoded(what))
    assert decision.body.score == float(np.float32(0.1))
    assert decision.body.part_id == "/" + "é" * 63
    scores = Scores(np.float32(0.75), np.float32(0.5), np.float32(1))
    what = Inspection(what.meta, Verdict.FAIL, None, 0.5, None, scores, seq=1)
    assert wire.decode_decision(*encoded(what)).body.score == 0.75


@pytest.mark.parametrize("score", [0.5, 0.75, math.nan, math.inf, -math.inf])
def test_a_pass_that_its_score_does_not_carry_is_not_sent(score: float) -> None:
    with pytest.raises(WireError, match="PASS with score"):
        encoded(inspection(score=score))


def test_a_pass_that_its_score_does_not_carry_is_not_believed() -> None:
    fail = encoded(inspection(Verdict.FAIL, 0.75))
    header = wire.unpack_header(fail.header)._replace(verdict=Verdict.PASS)
    with pytest.raises(WireError, match=r"PASS with score 0\.75, threshold 0\.5"):
        wire.decode_decision(wire.pack_header(header), fail.body)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("seq", 0, "not been numbered"),
        ("verdict", Verdict.NONE, "no verdict"),
        ("seq", 2**32, "seq"),
    ],
)
def test_what_is_not_a_decision_is_not_sent(field: str, value: int, words: str) -> None:
    what = inspection()
    object.__setattr__(what, field, value)
    with pytest.raises(WireError, match=words):
        encoded(what)


@pytest.mark.parametrize(
    ("position", "value", "words"),
    [
        (0, 2, "version 2"),
        (1, 4, "unknown type 4"),
        (1, HEARTBEAT, "type 2 where 1"),
        (2, 0, "encoding 0"),
        (3, 4, "unknown verdict 4"),
        (3, 0, "no verdict"),
    ],
)
def test_a_foreign_header_is_refused(position: int, value: int, words: str) -> None:
    header, body = encoded(inspection())
    bad = bytearray(header)
    bad[position] = value
    with pytest.raises(WireError, match=words):
        wire.decode_decision(bytes(bad), body)


@pytest.mark.parametrize("size", [0, HEADER_BYTES - 1, HEADER_BYTES + 1])
def test_a_header_of_wrong_length_is_refused(size: int) -> None:
    with pytest.raises(WireError, match=f"{size} bytes instead of 32"):
        wire.unpack_header(bytes(size))


@pytest.mark.parametrize(
    "change",
    [
        {"score": 10**400},
        {"score": "0.25"},
        {"station": "st1\n"},
        {"station": "st.1"},
        {"part_id": "x" * 65},
        {"latency_us": -1},
        {"captured_at": 1.5},
        {"captured_at": None},
    ],
)
def test_a_body_with_a_wrong_field_is_refused(change: dict[str, Any]) -> None:
    header, body = encoded(inspection())
    fields = msgspec.json.decode(body) | change
    text = msgspec.json.encode(fields)
    with pytest.raises(WireError, match="decision: "):
        wire.decode_decision(header, text)


def test_unknown_fields_are_ignored_and_deep_ones_refused() -> None:
    header, body = encoded(inspection())
    new = body[:-1] + b',"colour":{"of":["the","sky"]}}'
    assert wire.decode_decision(header, new) == wire.decode_decision(header, body)
    with pytest.raises(WireError, match="nested too deep"):
        wire.decode_decision(header, body[:-1] + b',"x":' + b"[" * 20_000)
    with pytest.raises(WireError, match="at most 32768"):
        wire.decode_decision(header, body + b" " * 32_768)


@given(header=st.binary(max_size=64), body=st.binary(max_size=200))
def test_garbage_is_refused_with_words(header: bytes, body: bytes) -> None:
    for decode in (wire.decode_decision, wire.decode_heartbeat):
        with pytest.raises(WireError):
            decode(header, body)


@given(position=st.integers(0, 1000), value=st.integers(0, 255), cut=st.integers(0, 400))
def test_one_flipped_byte_is_an_error_or_a_decision_never_a_crash(
    position: int, value: int, cut: int
) -> None:
    header, body = encoded(inspection())
    for bad in (bytearray(body), bytearray(body[:cut])):
        if bad:
            bad[position % len(bad)] = value
        try:
            decision = wire.decode_decision(header, bytes(bad))
        except WireError:
            continue
        score, threshold = decision.body.score, decision.body.threshold
        assert score is not None
        assert threshold is not None
        assert score < threshold


def test_heartbeat_round_trip_and_its_two_heads_agree() -> None:
    header = Header(HEARTBEAT, Verdict.NONE, 12, 99, published_us=5)
    body = HeartbeatBody(station="st1", state="running", head=12, counters={"frames": 12})
    message = wire.encode_heartbeat(header, body)
    assert wire.decode_heartbeat(*message) == (header, body)
    with pytest.raises(WireError, match="head 12 in the body, 13"):
        wire.decode_heartbeat(wire.pack_header(header._replace(seq=13)), message.body)


def test_heatmap_round_trip_and_it_needs_its_image() -> None:
    header = Header(HEATMAP, Verdict.FAIL, 12, 99)
    body = HeatmapBody(
        station="st1", frame_id=1, width=64, height=48, format="png8",
        scale_min=0.0, scale_max=1.5, score=1.5, threshold=0.5,
    )  # fmt: skip
    message = wire.encode_heatmap(header, body)
    assert wire.decode_heatmap(*message, b"png") == (header, body, b"png")
    with pytest.raises(WireError, match="image is missing"):
        wire.decode_heatmap(*message, b"")


def test_topics_end_with_a_dot() -> None:
    assert wire.topic(DECISION, "st1") == b"es1.dec.st1."
    assert wire.topic(HEARTBEAT, "st1") == b"es1.hb.st1."
    assert wire.topic(HEATMAP, "st1") == b"es1.hm.st1."
    assert not wire.topic(DECISION, "st10").startswith(wire.topic(DECISION, "st1"))
    assert wire.topic(DECISION, "st10").startswith(wire.prefix(DECISION))


REQUESTS: list[dialogue.Request] = [
    dialogue.Hello(consumer="gate-1", last=7),
    dialogue.Get(first=3, last=502),
    dialogue.Ack(upto=9, stage="stored"),
    dialogue.StatusRequest(),
]
REPLIES: list[dialogue.Reply] = [
    dialogue.Welcome(station="st1", epoch=5, head=9, oldest=1, state="running"),
    dialogue.Record(b"h", b"b"),
    dialogue.End(last=9),
    dialogue.Gap(oldest=4),
    dialogue.Acked(upto=9),
    dialogue.Status({"state": "running"}),
    dialogue.Error(reason="no"),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: type(r).__name__)
def test_requests_round_trip(request_: dialogue.Request) -> None:
    assert dialogue.decode_request(dialogue.encode(request_)) == request_


@pytest.mark.parametrize("reply", REPLIES, ids=lambda r: type(r).__name__)
def test_replies_round_trip(reply: dialogue.Reply) -> None:
    assert dialogue.decode_reply(dialogue.encode(reply)) == reply


def test_the_words_on_the_control_socket_are_those_of_the_contract() -> None:
    assert dialogue.encode(REQUESTS[1]) == [b"GET", b'{"from":3,"to":502}']
    assert dialogue.encode(REPLIES[2]) == [b"END", b'{"to":9}']
    assert dialogue.decode_request([b"STATUS"]) == dialogue.StatusRequest()


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([], "unknown request ''"),
        ([b"\xffHELLO"], "unknown request"),
        ([b"HELLO"], "1 frames instead of 2"),
        ([b"HELLO", b"{}"], "consumer"),
        ([b"HELLO", b'{"consumer":"a b"}'], "consumer"),
        ([b"HELLO", b'{"consumer":"a","last":-1}'], "last"),
        ([b"GET", b'{"from":0,"to":1}'], "from"),
        ([b"GET", b'{"from":9,"to":8}'], "lies before"),
        ([b"GET", b'{"from":1,"to":501}'], "501 records, at most 500"),
        ([b"GET", b'{"from":1,"to":4294967296}'], "to"),
        ([b"ACK", b'{"upto":1,"stage":""}'], "stage"),
        ([b"ACK", b"[" * 20_000], "ACK"),
    ],
)
def test_bad_requests_are_answered_with_the_reason(frames: list[bytes], words: str) -> None:
    with pytest.raises(WireError, match=words):
        dialogue.decode_request(frames)


@given(
    st.lists(
        st.one_of(st.binary(max_size=40), st.sampled_from([b"HELLO", b"GET", b"REC", b"END"])),
        max_size=4,
    )
)
def test_garbage_frames_never_crash_either_side(frames: list[bytes]) -> None:
    for decode in (dialogue.decode_request, dialogue.decode_reply):
        assert understood(decode, frames) in (frames[:1], [])


def understood(
    decode: Callable[[list[bytes]], dialogue.Request | dialogue.Reply], frames: list[bytes]
) -> list[bytes]:
    """The name of the message if the frames are one, nothing if they are refused."""
    try:
        return dialogue.encode(decode(frames))[:1]
    except WireError:
        return []


def test_header_struct_is_little_endian_without_padding() -> None:
    packed = wire.pack_header(Header(DECISION, Verdict.PASS, 1, 2, 3, 4, 5))
    assert struct.unpack("<BBBBIQIIQ", packed) == (1, 1, 1, 1, 1, 2, 3, 4, 5)
