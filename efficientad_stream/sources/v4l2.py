"""Source ``v4l2``: a UVC camera through OpenCV."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import cv2

from efficientad_stream import logs
from efficientad_stream.config import V4l2Source as Settings
from efficientad_stream.core.errors import ConfigError, TransientError
from efficientad_stream.core.types import FrameMeta, Reason
from efficientad_stream.runtime.protocols import Writable
from efficientad_stream.sources.pacing import REAL, Clocks
from efficientad_stream.sources.video import VideoReader, frame_meta

VIDEO_MAJOR = 81
"""Linux, Documentation/admin-guide/devices.txt: video capture and overlay devices."""


class V4l2Source:
    """A UVC camera (``runtime.protocols.Source``).

    OpenCV tells no frame counter of the device, so ``frame_id`` counts what was delivered: frames
    that the driver lost cannot be seen.

    Args:
        settings: device, size, rate, pixel format, grey or colour.
        clocks: to stamp frames by.
    """

    paced = True

    def __init__(self, settings: Settings, clocks: Clocks = REAL) -> None:
        self._settings = settings
        self._clocks = clocks
        self._reader: VideoReader | None = None
        self._seen = False
        self._frames = self._incomplete = 0

    def open(self) -> None:
        """Open the camera and ask for size, rate and format.

        Raises:
            ConfigError: there has never been such a device, it is none, or no right to use it.
            TransientError: it is unplugged, in use, or does not answer.
        """
        device = self._settings.device
        if not Path(device).exists():
            kind = TransientError if self._seen else ConfigError
            raise kind(f"source.device: {device}: no such camera; is it plugged in?")
        if not self._is_camera(device):
            raise ConfigError(
                f"source.device: {device}: is no video device; 'v4l2-ctl --list-devices' lists them"
            )
        if not os.access(device, os.R_OK | os.W_OK):
            raise ConfigError(f"source.device: {device}: no right to use it (group video?)")
        self._seen = True
        reader = VideoReader(self._configured(device), self._settings.grey)
        if not reader.usable:
            reader.close()
            raise TransientError(f"source.device: {device}: cannot be opened; is it in use?")
        self._reader = reader
        asked = (self._settings.width, self._settings.height)
        if (reader.width, reader.height) != asked:
            logs.get().warning(
                "camera chose another size",
                device=device,
                asked=f"{asked[0]}x{asked[1]}",
                got=f"{reader.width}x{reader.height}",
            )

    def grab_into(
        self,
        slot: Writable,
        timeout_s: float,  # noqa: ARG002 - OpenCV has its own
    ) -> FrameMeta | None:
        """Wait for the next frame, a second at most whatever ``timeout_s`` says, and decode it.

        Raises:
            TransientError: the camera delivers nothing; reopen it.
            RuntimeError: the source is not open.
        """
        if self._reader is None:
            raise RuntimeError("the v4l2 source is not open")
        if not self._reader.advance():
            raise TransientError(f"{self._settings.device}: no frame from the camera")
        times = self._clocks.now()
        self._frames += 1
        good = self._reader.fetch(slot)
        self._incomplete += not good
        return frame_meta(self._frames, times, self._reader, good, Reason.INCOMPLETE)

    def stats(self) -> Mapping[str, int]:
        """Frames delivered, and how many of them were damaged."""
        return {"frames": self._frames, "incomplete": self._incomplete}

    def close(self) -> None:
        """Release the device."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _is_camera(self, device: str) -> bool:
        """True for a device of Linux' video subsystem; anything else would be retried for ever."""
        try:
            found = Path(device).stat()
        except FileNotFoundError:
            return True  # unplugged just now: opening it will say so
        return stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) == VIDEO_MAJOR

    def _configured(self, device: str) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
        wanted = self._settings
        for prop, value in (
            (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*wanted.fourcc)),
            (cv2.CAP_PROP_FRAME_WIDTH, wanted.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, wanted.height),
            (cv2.CAP_PROP_FPS, wanted.fps),
        ):
            capture.set(prop, value)
        return capture
