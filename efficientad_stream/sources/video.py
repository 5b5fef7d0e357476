"""Video through OpenCV, decoded into memory that the caller owns."""

from __future__ import annotations

import os

# Both are read when OpenCV is loaded: what goes wrong is said once, by us, and no wait for a camera
# exceeds a second.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "1")

import cv2
import numpy as np

from efficientad_stream.core.types import FrameMeta, PixelArray, Reason
from efficientad_stream.runtime.protocols import Writable

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)


class VideoReader:
    """An opened ``cv2.VideoCapture`` whose frames land in memory that the caller owns.

    OpenCV allocates silently when the memory it is given does not fit; that is noticed here, the
    new size is adopted, and the frame is copied this once (``resized`` counts it).

    Args:
        capture: opened.
        grey: deliver H x W instead of H x W x 3 (BGR).
    """

    def __init__(self, capture: cv2.VideoCapture, grey: bool) -> None:
        self._capture = capture
        self._grey = grey
        self.height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        self.width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        self.channels = 1 if grey else 3
        self.expected = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        """Frames that a file promises; 0 where nobody knows."""
        self.resized = 0
        self._colour: PixelArray = np.empty((0, 0, 3), np.uint8)

    @property
    def usable(self) -> bool:
        """True if OpenCV opened it and knows the size of its frames (-1 where it does not)."""
        return self._capture.isOpened() and self.height > 0 and self.width > 0

    def advance(self) -> bool:
        """Go to the next frame; False if there is none."""
        try:
            return bool(self._capture.grab())
        except cv2.error:
            return False

    def fetch(self, slot: Writable) -> bool:
        """Decode the present frame into ``slot``; False if that fails."""
        height, width = self.height, self.width
        if self._grey and self._colour.shape[:2] != (height, width):
            self._colour = np.empty((height, width, 3), np.uint8)
        wanted = self._colour if self._grey else slot.view(height, width, 3)
        try:
            done, out = self._capture.retrieve(wanted)
        except cv2.error:
            return False
        if not done or out.ndim != 3 or out.shape[2] != 3 or out.dtype != np.uint8:
            return False
        if out is not wanted:
            self._adopt(np.asarray(out, np.uint8), slot)
        if self._grey:
            target = slot.view(self.height, self.width, 1)
            grey = cv2.cvtColor(self._colour, cv2.COLOR_BGR2GRAY, dst=target)
            assert grey is target, "OpenCV wrote elsewhere"
        return True

    def close(self) -> None:
        """Release the device or file."""
        self._capture.release()

    def _adopt(self, out: PixelArray, slot: Writable) -> None:
        self.height, self.width = out.shape[:2]
        self.resized += 1
        if self._grey:
            self._colour = out
        else:
            slot.view(self.height, self.width, 3)[...] = out


def frame_meta(
    frame_id: int,
    times: tuple[int, int],
    reader: VideoReader,
    good: bool,
    otherwise: Reason = Reason.UNREADABLE,
) -> FrameMeta:
    """Metadata of the frame that ``reader`` has just fetched, or failed to."""
    return FrameMeta(
        frame_id=frame_id,
        captured_ns=times[0],
        captured_at_us=times[1],
        height=reader.height if good else 0,
        width=reader.width if good else 0,
        channels=reader.channels if good else 0,
        loss=None if good else otherwise,
    )
