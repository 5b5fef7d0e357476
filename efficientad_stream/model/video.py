"""Frames of a video file, for training on a recorded line. Nothing here needs torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from efficientad_stream.core.errors import ArtifactError, ConfigError
from efficientad_stream.core.types import PixelArray

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v"})


@dataclass(frozen=True)
class FrameRange:
    """Frames ``start``, ``start + step``, ... below ``stop`` of a video; stop 0: to its end."""

    start: int = 0
    stop: int = 0
    step: int = 1

    def __str__(self) -> str:
        """As ``parse_frames`` reads it."""
        return f"{self.start}:{self.stop or ''}:{self.step}"


def parse_frames(text: str) -> FrameRange:
    """The frame range "START:STOP[:STEP]", as Python slices; START and STOP may be empty.

    Raises:
        ConfigError: it is not such a range, or an empty one.
    """
    match = re.fullmatch(r"([0-9]{0,9}):([0-9]{0,9})(?::([0-9]{1,9}))?", text)
    if match is None:
        raise ConfigError(f"--frames {text}: give START:STOP or START:STOP:STEP, e.g. 0:400:2")
    start, stop, step = (int(part) if part else 0 for part in match.groups())
    step = step if match[3] else 1
    if step < 1 or (match[2] and stop <= start):
        raise ConfigError(f"--frames {text}: holds no frame")
    return FrameRange(start, stop, step)


def video_frames(path: Path, frames: FrameRange, channels: int) -> Iterator[PixelArray]:
    """The frames of a video, decoded from its beginning (seeking is not exact).

    Raises:
        ArtifactError: it cannot be opened, or ends before the range begins.
    """
    capture = cv2.VideoCapture(str(path))
    try:
        if not path.is_file() or not capture.isOpened():
            raise ArtifactError(f"{path}: is not a video that can be opened")
        index = 0
        while not frames.stop or index < frames.stop:
            if not capture.grab():
                break
            if index >= frames.start and (index - frames.start) % frames.step == 0:
                done, frame = capture.retrieve()
                if not done:
                    raise ArtifactError(f"{path}: frame {index} cannot be decoded")
                if channels == 1:
                    frame = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
                yield np.asarray(frame, dtype=np.uint8)
            index += 1
        if index <= frames.start:
            raise ArtifactError(
                f"{path}: has only {index} frames; --frames begins at {frames.start}"
            )
    finally:
        capture.release()
