"""Source ``images``: a folder of images, sub-folders included, in order of path."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from efficientad_stream import logs
from efficientad_stream.config import ImagesSource as Settings
from efficientad_stream.core.errors import ArtifactError, ConfigError
from efficientad_stream.core.types import FrameMeta, PixelArray, Reason
from efficientad_stream.model.data import list_images, read_image
from efficientad_stream.runtime.protocols import SourceEnded, Writable
from efficientad_stream.sources.pacing import REAL, Clocks, Pacer

PART_ID_CHARS = 64


class ImagesSource:
    """Delivers the images of a folder (``runtime.protocols.Source``).

    ``frame_id`` counts from 1, on over loops and reopening; ``part_id`` is the path relative to the
    folder (its last 64 characters). A file that cannot be decoded becomes a marker. Images are read
    as for training: eight bits a channel, of sixteen the upper eight.

    Args:
        settings: folder, rate, loop, grey or colour, whether folders are labels.
        clocks: to pace and to stamp frames by.
    """

    def __init__(self, settings: Settings, clocks: Clocks = REAL) -> None:
        self._settings = settings
        self._folder = Path(settings.path)
        self._clocks = clocks
        self._pacer = Pacer(settings.fps, clocks)
        self._paths: list[Path] = []
        self._index = 0
        self._unreadable = logs.RateLimited("image cannot be read")

    @property
    def paced(self) -> bool:
        """True if images come at a rate, whether or not anybody is ready for them."""
        return self._settings.fps > 0

    def open(self) -> None:
        """List the folder.

        Raises:
            ConfigError: there is no such folder, or no image in it.
        """
        try:
            self._paths = list_images(self._folder)
        except ArtifactError as error:
            raise ConfigError(f"source.path: {error}") from error
        self._pacer.restart()

    def grab_into(self, slot: Writable, timeout_s: float) -> FrameMeta | None:
        """Decode the next image into ``slot`` when it is due; None if it is not yet.

        Raises:
            SourceEnded: all images have been delivered.
            RuntimeError: the source is not open.
        """
        if not self._paths:
            raise RuntimeError("the images source is not open")
        if self._index >= len(self._paths) and not self._settings.loop:
            raise SourceEnded
        if not self._pacer.wait(timeout_s):
            return None
        path = self._paths[self._index % len(self._paths)]
        self._index += 1
        captured_ns, captured_at_us = self._clocks.now()
        pixels = self._read(path)
        height, width, channels = (0, 0, 0)
        if pixels is not None:
            height, width = pixels.shape[:2]
            channels = 1 if pixels.ndim == 2 else pixels.shape[2]
            slot.view(height, width, channels)[...] = pixels
        return FrameMeta(
            frame_id=self._index,
            captured_ns=captured_ns,
            captured_at_us=captured_at_us,
            height=height,
            width=width,
            channels=channels,
            part_id=self._part_id(path),
            truth=path.parent.name if self._settings.labelled else None,
            loss=Reason.UNREADABLE if pixels is None else None,
        )

    def stats(self) -> Mapping[str, int]:
        """Images delivered, and how many of them could not be read."""
        return {"frames": self._index, "unreadable": self._unreadable.total}

    def close(self) -> None:
        """Nothing is held; the image that would have come next is still the next."""
        self._paths = []

    def _read(self, path: Path) -> PixelArray | None:
        try:
            return read_image(path, 1 if self._settings.grey else 3)
        except ArtifactError as error:
            self._unreadable.hit(error=str(error))
            return None

    def _part_id(self, path: Path) -> str:
        """The relative path as text; names on Linux are bytes, and not always UTF-8."""
        name = os.fsencode(path.relative_to(self._folder)).decode("utf-8", "replace")
        return name[-PART_ID_CHARS:]
