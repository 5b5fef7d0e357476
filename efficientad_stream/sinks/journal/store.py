"""Append, read, rotate, recover."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from efficientad_stream import logs
from efficientad_stream.core import segment as fmt
from efficientad_stream.core.errors import FatalError
from efficientad_stream.core.messages import MAX_U32
from efficientad_stream.runtime.durable import sync_folder
from efficientad_stream.runtime.worker import Worker
from efficientad_stream.sinks.journal import files
from efficientad_stream.sinks.journal.lock import JournalLock, Note, boot_id
from efficientad_stream.sinks.journal.syncer import Syncer

CLOSE_S = 0.3
"""How long a journal that is closed waits for its disk."""


class Journal:
    """The verdicts of one station, each written before it is published.

    ``seq`` is contiguous within one ``epoch``. A record is in the kernel when ``append`` returns,
    so it survives the end of the process; it is on the disk at most ``sync_ms`` later. A journal
    that was open when its *machine* went down may have lost its last records, published ones
    among them: it goes on in a new epoch, so that no seq is ever given to two parts.

    One thread appends; everything that reads may be called from others at the same time.
    """

    def __init__(
        self,
        folder: Path,
        lock: JournalLock,
        syncer: Syncer,
        segment_bytes: int,
        keep_segments: int,
    ) -> None:
        """For ``open`` only: nothing is recovered yet."""
        self._folder = folder
        self._file_lock = lock
        self._syncer = syncer
        self._segment_bytes = segment_bytes
        self._keep = keep_segments
        self._boot = boot_id()
        self._lock = threading.Lock()
        """Guards the two lists and the head."""
        self._reading = threading.Lock()
        self._earlier: list[files.Segment] = []
        self._segments: list[files.Segment] = []
        self._epoch = 0
        self._head = 0
        self._fd = -1
        self._end = 0
        self._size = 0

    @classmethod
    def open(
        cls, path: str | Path, segment_bytes: int, sync_ms: int, keep_segments: int, now_us: int
    ) -> Journal:
        """Open the journal in folder ``path``, or begin one there.

        Args:
            path: a folder of its own.
            segment_bytes: size of one file; they are allocated before they are needed.
            sync_ms: how often written records are forced to the disk; 0: each one before ``append``
                returns.
            keep_segments: how many files are kept.
            now_us: UTC microseconds: the epoch, where a new one begins.

        Raises:
            FatalError: another daemon writes it, or the disk is full or unwritable.
            ArtifactError: it holds foreign or damaged files.
        """
        folder = Path(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FatalError(
                f"journal {folder}: cannot be made: {error.strerror}; give journal.path a folder"
            ) from error
        with ExitStack() as undo:
            lock = JournalLock(folder)
            undo.callback(lock.release)
            syncer = Syncer(folder, sync_ms / 1000)
            undo.callback(syncer.close)
            journal = cls(folder, lock, syncer, segment_bytes, keep_segments)
            try:
                journal._recover(now_us)
            except OSError as error:
                raise FatalError(f"journal {folder}: {error.strerror}") from error
            undo.pop_all()
        return journal

    @property
    def epoch(self) -> int:
        """Identity of this journal; UTC microseconds of its beginning."""
        return self._epoch

    @property
    def head(self) -> int:
        """The last seq; 0 if there is none."""
        return self._head

    @property
    def oldest(self) -> int:
        """The first seq that is still kept; head + 1 if there is none."""
        with self._lock:
            return self._segments[0].first_seq

    def append(self, seq: int, header: bytes, body: bytes) -> None:
        """Write record ``seq``, which must be head + 1. Nobody can read it before it is safe.

        Raises:
            FatalError: it is not, it is too long, or the disk does not take it, or has lost an
                earlier one; the head is as before.
        """
        self._syncer.check()
        if seq != self._head + 1 or seq > MAX_U32:
            raise FatalError(f"journal {self._folder}: record {seq} cannot follow {self._head}")
        try:
            record = fmt.pack_record(seq, header, body)
        except ValueError as error:
            raise FatalError(f"journal {self._folder}: {error}") from error
        if self._end + len(record) > self._size:
            self._rotate(seq, len(record))
        self._write(record, self._end)
        self._syncer.written(self._fd)
        with self._lock:
            self._segments[-1].note(seq, self._end)
            self._end += len(record)
            self._head = seq

    def read(self, first: int, last: int, limit: int) -> Iterator[tuple[int, bytes, bytes]]:
        """Records ``first`` to ``last``, both included, at most ``limit``: (seq, header, body).

        What is not kept, or not written yet, is left out: compare the first seq with ``first``.

        Raises:
            ArtifactError: a record is damaged.
        """
        with self._reading, ExitStack() as stack:
            with self._lock:  # once open, a file can be read although retention removes it
                last = min(last, self._head, first + limit - 1)
                parts = [
                    (segment, stack.enter_context(files.opened(segment)), low, high)
                    for segment, low, high in self._covering(first, last)
                ]
            records = [
                (record.seq, record.header, record.body)
                for segment, file, low, high in parts
                for record in files.read(segment, file, low, high)
            ]
        return iter(records)

    def stats(self) -> dict[str, int]:
        """Counters for status and metrics."""
        with self._lock:
            count = len(self._segments) + len(self._earlier)
        return {"segments": count, "syncs": self._syncer.syncs}

    def close(self) -> None:
        """Force everything to the disk and leave the journal as properly closed. Again: nothing.

        A disk that takes longer than ``CLOSE_S`` is not waited for: the kernel has the records, and
        whoever opens the journal next finds them, unless the machine goes down before.

        Raises:
            FatalError: the disk failed.
        """
        if self._fd < 0:
            return
        self._fd = -1
        closing = Worker("journal-close", self._seal, _nobody_left_to_tell)
        closing.start()
        if not closing.join(CLOSE_S):
            logs.get().warning(
                "the disk has not confirmed the last records",
                journal=str(self._folder),
                head=self._head,
                waited_s=CLOSE_S,
            )
        elif closing.failed is not None:
            raise closing.failed

    def _seal(self, _stop: threading.Event) -> None:
        """Sync, and only then note that this was a proper end; nothing here can be interrupted."""
        try:
            self._syncer.close()
            self._file_lock.write(Note(boot=self._boot, epoch=self._epoch, closed_at=self._head))
        finally:
            self._file_lock.release()

    def _recover(self, now_us: int) -> None:
        """Find out where the last writer stopped, and go on from there or in a new epoch."""
        (self._folder / files.UNFINISHED).unlink(missing_ok=True)
        segments = files.list_segments(self._folder)
        note = self._file_lock.read()
        if not segments:
            self._begin(now_us)
        elif note is None or (note.closed_at is None and note.boot != self._boot):
            self._earlier = segments
            self._begin(max(now_us, segments[-1].epoch + 1))
        else:
            self._epoch = segments[-1].epoch
            self._earlier = [s for s in segments if s.epoch != self._epoch]
            self._segments = [s for s in segments if s.epoch == self._epoch]
            self._continue(self._segments[-1], note)
        self._prune()
        self._file_lock.write(Note(boot=self._boot, epoch=self._epoch))

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch
        self._rotate(1, 0)
        sync_folder(self._folder)
        self._syncer.written(self._fd)

    def _continue(self, segment: files.Segment, note: Note) -> None:
        """Stand behind the last record of ``segment``; what a cut-off write left becomes zeros.

        That record was never published, because publishing comes after writing.
        """
        found = files.scan(segment)
        lost = note.epoch == self._epoch and note.closed_at not in (None, found.last_seq)
        if lost or found.tail is fmt.Tail.DAMAGED:
            raise files.damaged(segment, found.end, found.last_seq + 1)
        self._fd = files.open_to_write(segment)
        self._size = os.fstat(self._fd).st_size
        self._head, self._end = found.last_seq, found.end
        if found.tail is fmt.Tail.TORN:
            self._write(bytes(found.written - found.end), found.end)
        self._syncer.written(self._fd)

    def _write(self, data: bytes, offset: int) -> None:
        """All of ``data`` at ``offset``; after a failure the same place can be written again."""
        view = memoryview(data)
        try:
            while view:
                done = os.pwrite(self._fd, view, offset)
                view, offset = view[done:], offset + done
        except OSError as error:
            path = self._segments[-1].path
            raise FatalError(f"journal {path}: offset {offset}: {error.strerror}") from error

    def _rotate(self, seq: int, need: int) -> None:
        """Go on in a new segment that begins with ``seq`` and has room for ``need`` bytes."""
        size = max(self._segment_bytes, fmt.SEGMENT_HEADER_BYTES + need)
        fd, segment = files.create(self._folder, fmt.SegmentHeader(self._epoch, seq), size)
        if self._fd >= 0:
            self._syncer.full(self._fd)
        self._fd, self._end, self._size = fd, fmt.SEGMENT_HEADER_BYTES, size
        with self._lock:
            self._segments.append(segment)
        self._prune()

    def _prune(self) -> None:
        """Remove the oldest segments beyond the number that is kept, earlier epochs first."""
        with self._lock:
            excess = len(self._earlier) + len(self._segments) - self._keep
            old = self._earlier[: max(0, excess)]
            del self._earlier[: len(old)]
            own = self._segments[: max(0, min(excess - len(old), len(self._segments) - 1))]
            del self._segments[: len(own)]
        for segment in (*old, *own):
            segment.path.unlink(missing_ok=True)

    def _covering(self, first: int, last: int) -> Iterator[tuple[files.Segment, int, int]]:
        """The segments that hold ``first`` to ``last``, and from where to where each does."""
        ends = [s.first_seq - 1 for s in self._segments[1:]] + [self._head]
        for segment, end in zip(self._segments, ends, strict=True):
            low, high = max(first, segment.first_seq), min(last, end)
            if low <= high:
                yield segment, low, high


def _nobody_left_to_tell(_name: str, _error: BaseException) -> None:
    """``close`` raises what its worker died of, or has said that the end is not confirmed."""
