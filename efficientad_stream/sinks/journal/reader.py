"""A journal from outside: read and checked without the lock, beside the daemon that writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.messages import MAX_U32
from efficientad_stream.core.segment import StoredRecord, Tail
from efficientad_stream.sinks.journal import files
from efficientad_stream.sinks.journal.files import Segment, list_segments
from efficientad_stream.sinks.journal.lock import Note, last_note

__all__ = [
    "CheckedSegment", "Segment", "check", "existing", "list_segments", "records", "spans",
    "within",
]  # fmt: skip


class CheckedSegment(NamedTuple):
    """A segment whose records are all whole; ``note`` is what a person should know of its end."""

    segment: Segment
    last_seq: int
    note: str | None


def existing(path: str | Path) -> list[Segment]:
    """The segments of the journal in folder ``path``, oldest first.

    Raises:
        ArtifactError: there is no journal, or a file in it is foreign.
    """
    segments = list_segments(Path(path))
    if not segments:
        raise ArtifactError(
            f"journal {path}: no such folder, or no segments ({files.SUFFIX}) in it"
        )
    return segments


def check(path: str | Path) -> Iterator[CheckedSegment]:
    """Read every byte of the journal in folder ``path``; one result a segment, oldest first.

    Raises:
        ArtifactError: a record or a whole segment is damaged or missing, at the end too, if the
            last writer closed the journal; names file and offset.
    """
    note = last_note(Path(path))  # before the segments: they may grow meanwhile, and never shrink
    segments = existing(path)
    followers = [*segments[1:], None]
    for segment, follower in zip(segments, followers, strict=True):
        found = files.scan(segment)
        goes_on = follower is not None and follower.epoch == segment.epoch
        hole = found.tail is Tail.DAMAGED and follower is None
        if hole or (goes_on and found.tail is not Tail.CLEAN):
            raise files.damaged(segment, found.end, found.last_seq + 1)
        if follower is not None and goes_on and follower.first_seq != found.last_seq + 1:
            raise ArtifactError(f"journal {path}: {_break(segment, found.last_seq, follower)}")
        words = None
        if found.tail is not Tail.CLEAN:
            words = f"a write was cut off at offset {found.end}, after record {found.last_seq}"
        yield CheckedSegment(segment, found.last_seq, words)
        if follower is None:
            _complete(segment, found.last_seq, note)


def _break(segment: Segment, last_seq: int, follower: Segment) -> str:
    """What is wrong between two segments of an epoch."""
    names = f"{segment.path.name} and {follower.path.name}"
    if follower.first_seq <= last_seq:
        return f"{names} both hold record {follower.first_seq} of epoch {segment.epoch}"
    missing = f"{last_seq + 1} to {follower.first_seq - 1} of epoch {segment.epoch}"
    return f"records {missing} are missing between {names}"


def _complete(segment: Segment, last_seq: int, note: Note | None) -> None:
    """Raise ArtifactError if the newest segment ends before the record that ended the last run."""
    if note is None or note.closed_at is None or note.epoch != segment.epoch:
        return
    if last_seq < note.closed_at:
        raise ArtifactError(
            f"journal {segment.path}: ends after record {last_seq}, but was closed after record "
            f"{note.closed_at}: the end is missing; keep the folder as evidence"
        )


def records(
    path: str | Path, first: int = 1, last: int = MAX_U32, epoch: int | None = None
) -> Iterator[StoredRecord]:
    """Records ``first`` to ``last`` of ``epoch`` (None: the newest) in the journal at ``path``.

    Raises:
        ArtifactError: no journal, no such epoch, or a record is damaged.
    """
    segments = existing(path)
    epoch = segments[-1].epoch if epoch is None else epoch
    own = [s for s in segments if s.epoch == epoch]
    if not own:
        known = ", ".join(str(e) for e in sorted({s.epoch for s in segments}))
        raise ArtifactError(f"journal {path}: no epoch {epoch}; it has {known}")
    for segment, end in spans(own):
        if segment.first_seq > last:
            return
        yield from within(segment, max(first, segment.first_seq), min(last, end))
    if last > end and (found := files.scan(own[-1])).tail is Tail.DAMAGED:
        raise files.damaged(own[-1], found.end, found.last_seq + 1)


def spans(segments: list[Segment]) -> Iterator[tuple[Segment, int]]:
    """Each of ``segments``, in order, and the last seq that it holds; reads only the last ones.

    Raises:
        ArtifactError: a segment cannot be read.
    """
    for segment, follower in zip(segments, [*segments[1:], None], strict=True):
        if follower is not None and follower.epoch == segment.epoch:
            yield segment, follower.first_seq - 1
        else:
            yield segment, files.scan(segment).last_seq


def within(segment: Segment, first: int, last: int) -> Iterator[StoredRecord]:
    """Records ``first`` to ``last`` of one segment, which must hold them all; none if last < first.

    Raises:
        ArtifactError: one of them is damaged.
    """
    if first <= last:
        with files.opened(segment) as file:
            yield from files.read(segment, file, first, last)
