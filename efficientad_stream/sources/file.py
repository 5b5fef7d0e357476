"""Source ``file``: a video file through OpenCV."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2

from efficientad_stream import logs
from efficientad_stream.config import FileSource as Settings
from efficientad_stream.core.errors import ConfigError
from efficientad_stream.core.types import FrameMeta
from efficientad_stream.runtime.protocols import SourceEnded, Writable
from efficientad_stream.sources.pacing import REAL, SECOND_NS, Clocks, Pacer
from efficientad_stream.sources.video import VideoReader, frame_meta


class FileSource:
    """Delivers the frames of a video file (``runtime.protocols.Source``).

    ``frame_id`` is the frame's number in the file, from 1, and counts on over loops; reopening goes
    on with the next frame. Frames before ``start_frame`` are decoded and passed over, because
    seeking is not exact.

    Args:
        settings: file, rate, first and last frame, loop, grey or colour.
        clocks: to pace and to stamp frames by.
    """

    def __init__(self, settings: Settings, clocks: Clocks = REAL) -> None:
        self._settings = settings
        self._clocks = clocks
        self._pacer = Pacer(settings.fps, clocks)
        self._reader: VideoReader | None = None
        self._position = 0
        """Frames of the file that the reader has behind it."""
        self._wanted = settings.start_frame
        """Index in the file of the next frame to deliver."""
        self._delivered = self._unreadable = 0

    @property
    def paced(self) -> bool:
        """True if frames come at a rate, whether or not anybody is ready for them."""
        return self._settings.fps > 0

    def open(self) -> None:
        """Open the file.

        Raises:
            ConfigError: there is no such file, or OpenCV cannot read it.
        """
        self._open_reader()
        self._pacer.restart()

    def grab_into(self, slot: Writable, timeout_s: float) -> FrameMeta | None:
        """Decode the next frame into ``slot`` when it is due; None if it is not yet.

        Raises:
            SourceEnded: the last frame has been delivered.
            ConfigError: the file holds no frame to deliver.
            RuntimeError: the source is not open.
        """
        if self._reader is None:
            raise RuntimeError("the file source is not open")
        try:
            return self._grab(self._reader, slot, timeout_s)
        except EOFError:
            self._end()
            return None

    def stats(self) -> Mapping[str, int]:
        """Frames delivered, and how many of them could not be decoded."""
        return {"frames": self._delivered, "unreadable": self._unreadable}

    def close(self) -> None:
        """Close the file; the frame that would have come next is still the next."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _open_reader(self) -> None:
        path = self._settings.path
        if not Path(path).is_file():
            raise ConfigError(f"source.path: {path}: no such video file")
        reader = VideoReader(cv2.VideoCapture(path), self._settings.grey)
        if not reader.usable:
            reader.close()
            raise ConfigError(f"source.path: {path}: not a video that can be read, or truncated")
        self._reader, self._position = reader, 0

    def _grab(self, reader: VideoReader, slot: Writable, timeout_s: float) -> FrameMeta | None:
        if self._wanted == self._settings.end_frame > 0:
            raise EOFError
        limit_ns = self._clocks.ns() + int(timeout_s * SECOND_NS)
        while self._position < self._wanted:
            if self._clocks.ns() > limit_ns:
                return None
            self._advance(reader)
        if not self._pacer.wait(timeout_s):
            return None
        self._advance(reader)
        self._wanted += 1
        self._delivered += 1
        times = self._clocks.now()
        good = reader.fetch(slot)
        self._unreadable += not good
        return frame_meta(self._settings.start_frame + self._delivered, times, reader, good)

    def _advance(self, reader: VideoReader) -> None:
        if not reader.advance():
            raise EOFError
        self._position += 1

    def _note_early_end(self) -> None:
        """One line if the file promised more than could be read: it is truncated or damaged."""
        promised = self._reader.expected if self._reader is not None else 0
        wanted = min(promised, self._settings.end_frame or promised)
        if self._position < wanted:
            logs.get().warning(
                "video ended early: truncated or damaged?",
                path=self._settings.path,
                read=self._position,
                promised=promised,
            )

    def _end(self) -> None:
        """The file, or the part that is wanted, is over: again, or no more."""
        start = self._settings.start_frame
        if self._wanted == start:
            raise ConfigError(
                f"source.start_frame: {start}: {self._settings.path} ends after "
                f"{self._position} frames"
            )
        self._note_early_end()
        if not self._settings.loop:
            raise SourceEnded
        self.close()
        self._open_reader()
        self._wanted = start
