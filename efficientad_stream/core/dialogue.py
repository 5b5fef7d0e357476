"""The messages of the control socket, as frames ``[name, JSON]`` (docs/contract.md).

Requests come from DEALER sockets, replies go back to them. A record of the journal is the one reply
with three frames: ``[REC, header, body]``, byte for byte as it was published.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, field

from efficientad_stream.core.messages import MAX_U32, Count, ShortText, Station, WireError

MAX_GET = 500
"""Records that one GET may ask for."""
MAX_CONTROL_BYTES = 64 * 1024
"""Limit of one frame on the control socket."""

Seq = Annotated[int, Meta(ge=0, le=MAX_U32)]


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """Request: who consumes, and the last seq it has (0: none)."""

    consumer: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:@-]{1,64}\Z")]
    last: Seq = 0


class Get(msgspec.Struct, frozen=True, kw_only=True):
    """Request: the records ``first`` to ``last`` ("from", "to"), both included, at most 500."""

    first: Annotated[int, Meta(ge=1, le=MAX_U32)] = field(name="from")
    last: Annotated[int, Meta(ge=1, le=MAX_U32)] = field(name="to")


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """Request: everything up to ``upto`` has reached ``stage`` ("seen", "stored", "actuated")."""

    upto: Seq
    stage: Annotated[str, Meta(min_length=1, max_length=32)] = "seen"


class StatusRequest(msgspec.Struct, frozen=True):
    """Request: the station's status."""


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """Reply to HELLO: where the station stands."""

    station: Station
    epoch: Count
    head: Seq
    oldest: Seq
    """The oldest record that GET can return; head + 1 if there is none."""
    state: ShortText
    heartbeat_ms: Annotated[int, Meta(ge=1)] = 100
    run_first: Seq = 1
    """The first seq of the daemon's present run."""
    started_at: Count = 0
    """When the present run began, UTC microseconds."""


class Record(msgspec.Struct, frozen=True):
    """Reply to GET, once a record."""

    header: bytes
    body: bytes


class End(msgspec.Struct, frozen=True, kw_only=True):
    """Reply to GET, last: records were sent up to ``last`` ("to")."""

    last: Seq = field(name="to")


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Reply to GET: the records asked for are no longer kept; ``oldest`` is the first that is."""

    oldest: Seq


class Acked(msgspec.Struct, frozen=True, kw_only=True):
    """Reply to ACK."""

    upto: Seq


class Status(msgspec.Struct, frozen=True):
    """Reply to STATUS: the station's own words."""

    content: dict[str, Any]


class Error(msgspec.Struct, frozen=True, kw_only=True):
    """Reply to a request that could not be understood or served."""

    reason: str


Request = Hello | Get | Ack | StatusRequest
Reply = Welcome | Record | End | Gap | Acked | Status | Error

_NAMES: dict[type[Any], bytes] = {
    Hello: b"HELLO",
    Get: b"GET",
    Ack: b"ACK",
    StatusRequest: b"STATUS",
    Welcome: b"WELCOME",
    End: b"END",
    Gap: b"GAP",
    Acked: b"ACKED",
    Error: b"ERROR",
}
_REQUESTS: dict[bytes, type[Request]] = {_NAMES[k]: k for k in (Hello, Get, Ack, StatusRequest)}
_REPLIES: dict[bytes, type[Reply]] = {_NAMES[k]: k for k in (Welcome, End, Gap, Acked, Error)}
_RECORD, _STATUS = b"REC", b"STATUS"


def encode(message: Request | Reply) -> list[bytes]:
    """The frames of ``message``."""
    if isinstance(message, Record):
        return [_RECORD, message.header, message.body]
    if isinstance(message, Status):
        return [_STATUS, msgspec.json.encode(message.content)]
    return [_NAMES[type(message)], msgspec.json.encode(message)]


def decode_request(frames: Sequence[bytes]) -> Request:
    """What a consumer asks for.

    Raises:
        WireError: malformed; the message is fit to be sent back as the reason.
    """
    name = frames[0] if frames else b""
    if name not in _REQUESTS:
        known = ", ".join(sorted(n.decode() for n in _REQUESTS))
        raise WireError(f"unknown request {_printable(name)}; known are {known}")
    if name == _STATUS and len(frames) == 1:
        return StatusRequest()
    if len(frames) != 2:
        raise WireError(f"{name.decode()}: {len(frames)} frames instead of 2 (name, JSON)")
    request = _decode(frames[1], _REQUESTS[name], name)
    if isinstance(request, Get):
        _check_range(request)
    return request


def decode_reply(frames: Sequence[bytes]) -> Reply:
    """What the station answers.

    Raises:
        WireError: malformed.
    """
    name = frames[0] if frames else b""
    if name == _RECORD and len(frames) == 3:
        return Record(frames[1], frames[2])
    if name == _STATUS and len(frames) == 2:
        return Status(_decode(frames[1], dict[str, Any], name))
    if name not in _REPLIES or len(frames) != 2:
        raise WireError(f"unknown reply {_printable(name)} of {len(frames)} frames")
    return _decode(frames[1], _REPLIES[name], name)


def _check_range(get: Get) -> None:
    if get.last < get.first:
        raise WireError(f"GET: to {get.last} lies before from {get.first}")
    if get.last - get.first >= MAX_GET:
        raise WireError(f"GET: {get.last - get.first + 1} records, at most {MAX_GET} at a time")


T = TypeVar("T")


def _decode(data: bytes, kind: type[T], name: bytes) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(f"{name.decode()}: {error}") from error
    except RecursionError as error:
        raise WireError(f"{name.decode()}: JSON nested too deep") from error


def _printable(name: bytes) -> str:
    """At most 16 bytes of a name that came from outside, in ASCII."""
    return ascii(name[:16].decode("latin-1"))
