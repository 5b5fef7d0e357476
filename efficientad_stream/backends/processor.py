"""What all processor backends share: frames to RGB on one side, maps to scores on the other."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from efficientad_stream.core.errors import FatalError
from efficientad_stream.core.recipe import Recipe
from efficientad_stream.core.types import PixelArray, Scores
from efficientad_stream.model.frames import check_format, inspected, prepare
from efficientad_stream.model.networks import Maps, normalise_maps, only_inspected

Submitted = tuple[PixelArray, ...]
"""The ticket: the frames themselves; the processor scores them when they are collected."""
Array = NDArray[np.float32]


class ProcessorBackend(ABC):
    """One recipe on the processor, loaded and warm.

    Args:
        recipe: that the networks belong to.
        max_frames: largest batch that memory is set aside for; larger ones make it grow.
        maps: whether somebody needs the maps; if not, they are let go at once.
    """

    name: ClassVar[str]

    def __init__(self, recipe: Recipe, max_frames: int, *, maps: bool) -> None:
        self._geometry = recipe.geometry
        self._quantiles = recipe.quantiles
        counts = inspected(recipe.geometry)
        self._inspected = None if counts is None else torch.from_numpy(counts.astype(np.float32))
        self._maps = maps
        self._open = True
        self._warm_up(max_frames)

    @property
    def description(self) -> str:
        """Which engine it is, for the log."""
        return self.name

    @abstractmethod
    def _reserve(self, frames: int) -> NDArray[np.uint8]:
        """Memory for ``frames``; what is returned, N x H x W x 3 RGB, is filled before each run."""

    @abstractmethod
    def _raw_maps(self, frames: int) -> tuple[Array, Array]:
        """Local and global map before normalisation, N x h x w, of the first ``frames``.

        The arrays may be overwritten by the next call.
        """

    def check(self, frame: PixelArray) -> None:
        """Raise FormatError unless ``frame`` is what the recipe expects."""
        check_format(frame, self._geometry)

    def submit(self, frames: Sequence[PixelArray]) -> Submitted:
        """Take note of the frames; the work is done by ``collect``."""
        return tuple(frames)

    def collect(self, ticket: Submitted) -> list[Scores]:
        """Scores, with maps if they are needed, one a frame.

        Raises:
            FatalError: the engine failed, or the backend is closed.
        """
        if not self._open:
            raise FatalError(f"{self.name}: used after it was closed")
        try:
            return self._score(ticket)
        except (RuntimeError, MemoryError) as error:
            first = (str(error) or type(error).__name__).splitlines()[0]
            raise FatalError(f"{self.name}: {first}") from error

    def close(self) -> None:
        """Let go of the networks."""
        self._open = False

    def _warm_up(self, frames: int) -> None:
        """The first run of each size is slow: kernels are chosen, memory is laid out."""
        self._rgb = self._reserved(frames)
        size = self._geometry.frame or (self._geometry.height, self._geometry.width)
        black = np.zeros((*size, 3) if self._geometry.channels == 3 else size, np.uint8)
        for count in {1, frames}:
            self.collect(self.submit([black] * count))

    def _reserved(self, frames: int) -> NDArray[np.uint8]:
        try:
            return self._reserve(frames)
        except (RuntimeError, MemoryError) as error:
            raise FatalError(
                f"{self.name}: no memory for batches of {frames}; free some, or lower "
                "batch.max_frames"
            ) from error

    def _score(self, frames: Submitted) -> list[Scores]:
        count = len(frames)
        if not count:
            return []
        if count > len(self._rgb):
            self._rgb = self._reserved(count)
        for frame, out in zip(frames, self._rgb, strict=False):
            prepare(frame, self._geometry, out)
        local, globl = (torch.from_numpy(raw) for raw in self._raw_maps(count))
        raw = only_inspected(Maps(local, globl), self._inspected)
        maps = normalise_maps(raw, self._quantiles)
        combined = (maps.local + maps.globl) / 2
        peaks = torch.stack([one.amax((1, 2)) for one in (combined, *maps)], 1).tolist()
        kept = list(combined.numpy()) if self._maps else [None] * count
        return [
            Scores(score, local_score, global_score, anomaly_map)
            for (score, local_score, global_score), anomaly_map in zip(peaks, kept, strict=True)
        ]


def thread_count(wanted: int) -> int:
    """``wanted``, or one a core that the process may use if that is 0."""
    return wanted or len(os.sched_getaffinity(0))
