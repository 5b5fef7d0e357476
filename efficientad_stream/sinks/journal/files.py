"""The files of a journal: found, created, read and checked. Nothing here changes a record.

Format: ``core.segment``. A journal is a folder of segments ``<epoch>-<first seq>.esj``.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from efficientad_stream.core import segment as fmt
from efficientad_stream.core.errors import ArtifactError, FatalError

SUFFIX = ".esj"
UNFINISHED = "new.tmp"
"""A segment on its way; it gets its name when it is whole."""
MARK_EVERY = 256


@dataclass
class Segment:
    """One file of a journal.

    ``marks[i]`` is the offset of record ``first_seq + i * MARK_EVERY``, as far as known, so that a
    read in the middle does not walk the whole file.
    """

    path: Path
    epoch: int
    first_seq: int
    marks: list[int] = field(default_factory=lambda: [fmt.SEGMENT_HEADER_BYTES])

    def note(self, seq: int, offset: int) -> None:
        """Record ``seq`` lies at ``offset``: keep it if the next mark is due."""
        if seq - self.first_seq == len(self.marks) * MARK_EVERY:
            self.marks.append(offset)


class Scan(NamedTuple):
    """What a segment holds.

    Its last good seq (first - 1 if none), where that record ends, what follows, and where the
    zeros begin that fill the file.
    """

    last_seq: int
    end: int
    tail: fmt.Tail
    written: int


def list_segments(folder: Path) -> list[Segment]:
    """All segments of the journal in ``folder``, oldest first.

    Raises:
        ArtifactError: a file cannot be read, or is not a segment.
    """
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            with path.open("rb") as file:
                header = fmt.unpack_segment_header(file.read(fmt.SEGMENT_HEADER_BYTES))
        except OSError as error:
            raise ArtifactError(f"journal {path}: {error.strerror}") from error
        except ValueError as error:
            raise ArtifactError(f"journal {path}: offset 0: {error}; move the file away") from error
        found.append(Segment(path, header.epoch, header.first_seq))
    return sorted(found, key=lambda s: (s.epoch, s.first_seq))


def create(folder: Path, header: fmt.SegmentHeader, size: int) -> tuple[int, Segment]:
    """A new segment of ``size`` allocated bytes: its descriptor, open to write, and itself.

    Raises:
        FatalError: the disk is full or does not take it.
    """
    path = folder / f"{header.epoch:016d}-{header.first_seq:010d}{SUFFIX}"
    unfinished = folder / UNFINISHED
    try:
        fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.posix_fallocate(fd, 0, size)
            os.pwrite(fd, fmt.pack_segment_header(header), 0)
            unfinished.rename(path)
        except OSError:
            os.close(fd)
            unfinished.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FatalError(
            f"journal {path}: {error.strerror}; {size} bytes are needed for the next segment"
        ) from error
    return fd, Segment(path, header.epoch, header.first_seq)


@contextmanager
def mapped(file: BinaryIO) -> Iterator[mmap.mmap]:
    """The bytes of an open segment, read-only, as they are on the disk now."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def scan(segment: Segment) -> Scan:
    """Walk the whole of ``segment``, set its marks, and say what it holds.

    Raises:
        ArtifactError: it cannot be read.
    """
    last, end = segment.first_seq - 1, fmt.SEGMENT_HEADER_BYTES
    with opened(segment) as file, mapped(file) as data:
        for record in fmt.walk(data, segment.first_seq):
            segment.note(record.seq, record.offset)
            last, end = record.seq, record.end
        return Scan(last, end, fmt.tail(data, end, last + 1), fmt.written_end(data, end))


def read(segment: Segment, file: BinaryIO, first: int, last: int) -> Iterator[fmt.StoredRecord]:
    """Records ``first`` to ``last`` of ``segment``, all of which it must hold.

    Raises:
        ArtifactError: one of them is damaged.
    """
    mark = min((first - segment.first_seq) // MARK_EVERY, len(segment.marks) - 1)
    seq, offset = segment.first_seq + mark * MARK_EVERY, segment.marks[mark]
    with mapped(file) as data:
        for record in fmt.walk(data, seq, offset):
            segment.note(record.seq, record.offset)
            seq, offset = record.seq + 1, record.end
            if record.seq >= first:
                yield record
            if record.seq == last:
                return
    raise damaged(segment, offset, seq)


def opened(segment: Segment) -> BinaryIO:
    """``segment``, open to read.

    Raises:
        ArtifactError: it is gone or unreadable.
    """
    try:
        return segment.path.open("rb")
    except OSError as error:
        raise ArtifactError(f"journal {segment.path}: {error.strerror}") from error


def open_to_write(segment: Segment) -> int:
    """A descriptor of ``segment``, open to write.

    Raises:
        FatalError: it is read-only or gone.
    """
    try:
        return os.open(segment.path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise FatalError(f"journal {segment.path}: {error.strerror}") from error


def damaged(segment: Segment, offset: int, seq: int) -> ArtifactError:
    """The error for record ``seq`` that is not where it must be."""
    return ArtifactError(
        f"journal {segment.path}: offset {offset}: record {seq} is damaged; keep the folder as "
        f"evidence and give the station a new one"
    )
