"""The processor backend on plain PyTorch: single precision, the folded network."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch

from efficientad_stream.core.errors import FatalError
from efficientad_stream.core.types import PixelArray, Scores
from efficientad_stream.model.artifact import LoadedRecipe
from efficientad_stream.model.folded import FoldedEfficientAD
from efficientad_stream.model.frames import check_format, inspected, prepare
from efficientad_stream.model.networks import channels_last

Submitted = tuple[PixelArray, ...]
"""The ticket: the frames themselves; the processor scores them when they are collected."""


class TorchCpuBackend:
    """One recipe on the processor, loaded and warm.

    Args:
        loaded: the recipe and its networks.
        threads: that PyTorch uses in this process; 0: one a core that the process may use.
        max_frames: largest batch that memory is set aside for; larger ones make it grow.
        maps: whether somebody needs the maps; if not, they are let go at once.
    """

    def __init__(
        self, loaded: LoadedRecipe, threads: int = 0, max_frames: int = 1, *, maps: bool = False
    ) -> None:
        torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
        self._geometry = loaded.recipe.geometry
        self._maps = maps
        folded = FoldedEfficientAD(loaded.net, loaded.recipe.quantiles, inspected(self._geometry))
        self._net: FoldedEfficientAD | None = channels_last(folded)
        self._reserve(max_frames)
        self._warm_up(max_frames)

    def check(self, frame: PixelArray) -> None:
        """Raise FormatError unless ``frame`` is what the recipe expects."""
        check_format(frame, self._geometry)

    def submit(self, frames: Sequence[PixelArray]) -> Submitted:
        """Take note of the frames; the work is done by ``collect``."""
        return tuple(frames)

    def collect(self, ticket: Submitted) -> list[Scores]:
        """Scores, with maps if they are needed, one a frame.

        Raises:
            FatalError: PyTorch failed, or the backend is closed.
        """
        if self._net is None:
            raise FatalError("torch_cpu: used after it was closed")
        try:
            return self._score(self._net, ticket)
        except (RuntimeError, MemoryError) as error:
            first = (str(error) or type(error).__name__).splitlines()[0]
            raise FatalError(f"torch_cpu: {first}") from error

    def close(self) -> None:
        """Let go of the networks."""
        self._net = None

    def _reserve(self, frames: int) -> None:
        """Memory for ``frames``: as bytes, and as the numbers that the network takes."""
        height, width = self._geometry.height, self._geometry.width
        self._rgb = np.empty((frames, height, width, 3), np.uint8)
        self._bytes = torch.from_numpy(self._rgb).permute(0, 3, 1, 2)
        self._input = torch.empty(self._bytes.shape).to(memory_format=torch.channels_last)

    def _warm_up(self, frames: int) -> None:
        """The first run of each size is slow: kernels are chosen, memory is laid out."""
        size = self._geometry.frame or (self._geometry.height, self._geometry.width)
        black = np.zeros((*size, 3) if self._geometry.channels == 3 else size, np.uint8)
        for count in {1, frames}:
            self.collect(self.submit([black] * count))

    @torch.inference_mode()
    def _score(self, net: FoldedEfficientAD, frames: Submitted) -> list[Scores]:
        count = len(frames)
        if count > len(self._rgb):
            self._reserve(count)
        for frame, out in zip(frames, self._rgb, strict=False):
            prepare(frame, self._geometry, out)
        rgb = self._input[:count].copy_(self._bytes[:count]).div_(255)
        combined, maps = net(rgb)
        peaks = torch.stack([m.amax((1, 2)) for m in (combined, maps.local, maps.globl)], 1)
        kept = list(combined.numpy()) if self._maps else [None] * count
        return [
            Scores(score, local, globl, anomaly_map)
            for (score, local, globl), anomaly_map in zip(peaks.tolist(), kept, strict=True)
        ]
