"""The processor backend on plain PyTorch: single precision, the folded network."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from efficientad_stream.backends.processor import Array, ProcessorBackend, thread_count
from efficientad_stream.model.artifact import LoadedRecipe
from efficientad_stream.model.folded import FoldedEfficientAD
from efficientad_stream.model.networks import channels_last


class TorchCpuBackend(ProcessorBackend):
    """One recipe on the processor, loaded and warm.

    Args:
        loaded: the recipe and its networks.
        threads: that PyTorch uses in this process; 0: one a core that the process may use.
        max_frames, maps: see ``ProcessorBackend``.
    """

    name = "torch_cpu"

    def __init__(
        self, loaded: LoadedRecipe, threads: int = 0, max_frames: int = 1, *, maps: bool = False
    ) -> None:
        torch.set_num_threads(thread_count(threads))
        folded = FoldedEfficientAD(loaded.net, loaded.recipe.quantiles)
        self._net: FoldedEfficientAD | None = channels_last(folded)
        super().__init__(loaded.recipe, max_frames, maps=maps)

    def close(self) -> None:
        """Let go of the networks."""
        super().close()
        self._net = None

    def _reserve(self, frames: int) -> NDArray[np.uint8]:
        """Memory as bytes, and as the numbers that the network takes."""
        rgb = np.empty((frames, self._geometry.height, self._geometry.width, 3), np.uint8)
        self._bytes = torch.from_numpy(rgb).permute(0, 3, 1, 2)
        self._input = torch.empty(self._bytes.shape).to(memory_format=torch.channels_last)
        return rgb

    def _raw_maps(self, frames: int) -> tuple[Array, Array]:
        assert self._net is not None
        rgb = self._input[:frames].copy_(self._bytes[:frames]).div_(255)
        maps = self._net.raw_maps(rgb)
        return maps.local.numpy(), maps.globl.numpy()
