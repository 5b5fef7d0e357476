r"""The bytes of a journal: segments of records, each with its checksum.

A segment is a header of 32 bytes, then records back to back, then zeros to its preallocated end:

    header  magic "ES1JRNL\n", u32 format, u32 first seq, u64 epoch, u32 0, u32 CRC-32 of these 28
    record  u32 length of the payload, u32 CRC-32 of length, seq and payload, u32 seq, payload

All little-endian; a payload is the published header (32 bytes) and body. Pure: bytes in, bytes out.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from efficientad_stream.core.messages import HEADER_BYTES, MAX_BODY

if TYPE_CHECKING:
    from mmap import mmap

    Data = bytes | mmap

MAGIC = b"ES1JRNL\n"
FORMAT = 1
SEGMENT_HEADER_BYTES = 32
RECORD_HEADER_BYTES = 12
MAX_PAYLOAD = HEADER_BYTES + MAX_BODY

_SEGMENT = struct.Struct("<8sIIQI")
_CRC = struct.Struct("<I")
_RECORD = struct.Struct("<III")
_SUMMED = struct.Struct("<II")
_BLOCK = 64 * 1024


class SegmentHeader(NamedTuple):
    """Which part of which journal a segment holds."""

    epoch: int
    first_seq: int


class StoredRecord(NamedTuple):
    """A record and where it lies: bytes ``offset`` to ``end`` of its segment."""

    seq: int
    header: bytes
    body: bytes
    offset: int
    end: int


class Tail(Enum):
    """What follows the last good record of a segment."""

    CLEAN = "clean"
    """Zeros, or the end."""
    TORN = "torn"
    """What a write that was cut off leaves: something, and no good record after it."""
    DAMAGED = "damaged"
    """A bad record with good ones after it: bytes have changed since they were written."""


def pack_segment_header(header: SegmentHeader) -> bytes:
    """The first 32 bytes of a segment."""
    data = _SEGMENT.pack(MAGIC, FORMAT, header.first_seq, header.epoch, 0)
    return data + _CRC.pack(zlib.crc32(data))


def unpack_segment_header(data: Data) -> SegmentHeader:
    """The header at the beginning of ``data``.

    Raises:
        ValueError: not a segment of a journal, of another format, or damaged.
    """
    start = data[:SEGMENT_HEADER_BYTES]
    if len(start) < SEGMENT_HEADER_BYTES or start[: len(MAGIC)] != MAGIC:
        raise ValueError("not a journal segment")
    magic_to_reserved = start[: _SEGMENT.size]
    _, version, first_seq, epoch, _ = _SEGMENT.unpack(magic_to_reserved)
    if version != FORMAT:
        raise ValueError(f"journal format {version}, this program knows {FORMAT}")
    if _CRC.pack(zlib.crc32(magic_to_reserved)) != start[_SEGMENT.size :]:
        raise ValueError("the segment's header is damaged")
    return SegmentHeader(epoch, first_seq)


def pack_record(seq: int, header: bytes, body: bytes) -> bytes:
    """One record.

    Raises:
        ValueError: the payload is too long, or ``header`` is not 32 bytes.
    """
    length = len(header) + len(body)
    if len(header) != HEADER_BYTES or length > MAX_PAYLOAD:
        raise ValueError(
            f"record {seq}: header of {len(header)} bytes and body of {len(body)}; "
            f"{HEADER_BYTES} and at most {MAX_BODY} fit"
        )
    crc = _checksum(length, seq, header + body)
    return _RECORD.pack(length, crc, seq) + header + body


def walk(data: Data, seq: int, offset: int = SEGMENT_HEADER_BYTES) -> Iterator[StoredRecord]:
    """The good records from ``offset`` on, of which the first must be ``seq``.

    Ends at the first place that does not hold the record that belongs there.
    """
    while (record := _record_at(data, offset)) is not None and record.seq == seq:
        yield record
        seq, offset = seq + 1, record.end


def tail(data: Data, offset: int, seq: int) -> Tail:
    """What lies at ``offset``, where record ``seq`` would be but is not."""
    end = written_end(data, offset)
    if end == offset:
        return Tail.CLEAN
    for later in range(offset + 1, end - RECORD_HEADER_BYTES):
        record = _record_at(data, later)
        if record is not None and record.seq > seq:
            return Tail.DAMAGED
    return Tail.TORN


def written_end(data: Data, offset: int) -> int:
    """Where the zeros begin that fill ``data`` to its end; at least ``offset``."""
    end = len(data)
    while end > offset:
        start = max(offset, end - _BLOCK)
        used = len(data[start:end].rstrip(b"\0"))
        if used:
            return start + used
        end = start
    return offset


def _record_at(data: Data, offset: int) -> StoredRecord | None:
    start = offset + RECORD_HEADER_BYTES
    if start > len(data):
        return None
    length, crc, seq = _RECORD.unpack_from(data, offset)
    end = start + length
    if not HEADER_BYTES <= length <= MAX_PAYLOAD or end > len(data):
        return None
    payload = data[start:end]
    if crc != _checksum(length, seq, payload):
        return None
    return StoredRecord(seq, payload[:HEADER_BYTES], payload[HEADER_BYTES:], offset, end)


def _checksum(length: int, seq: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_SUMMED.pack(length, seq)))
