"""The processor backend on our own kernels: single precision, Winograd convolutions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from efficientad_stream.backends.native.library import Kernels
from efficientad_stream.backends.native.network import Network, Tiling
from efficientad_stream.backends.processor import Array, ProcessorBackend, thread_count
from efficientad_stream.core.errors import FatalError
from efficientad_stream.model.artifact import LoadedRecipe
from efficientad_stream.model.folded import FoldedEfficientAD


class CpuBackend(ProcessorBackend):
    """One recipe on the processor, loaded and warm; to be used by one thread at a time.

    Its scores are those of the reference network to 1e-4, its maps to 1e-4 of their maximum; the
    same bits for every batch size and number of threads.

    Args:
        loaded: the recipe and its networks.
        threads: that work on a batch; 0: one a core that the process may use.
        max_frames, maps: see ``ProcessorBackend``.
        kind: instruction set, one of ``library.levels()``; None: the fastest.
        tiling: exactness against speed.

    Raises:
        NativeUnavailableError: the kernels were not built.
        FatalError: no memory, or no threads.
    """

    name = "cpu"

    def __init__(
        self,
        loaded: LoadedRecipe,
        threads: int = 0,
        max_frames: int = 1,
        *,
        maps: bool = False,
        kind: str | None = None,
        tiling: Tiling = Tiling(),  # noqa: B008 - frozen
    ) -> None:
        self._kernels: Kernels | None = Kernels(thread_count(threads), kind)
        self._kind = self._kernels.kind
        self._folded: FoldedEfficientAD | None = FoldedEfficientAD(
            loaded.net, loaded.recipe.quantiles
        )
        self._tiling = tiling
        self._network: Network | None = None
        super().__init__(loaded.recipe, max_frames, maps=maps)

    def close(self) -> None:
        """Let go of threads and memory; a batch in work keeps them until it is done."""
        super().close()
        self._kernels = self._folded = self._network = None

    @property
    def description(self) -> str:
        """With the instruction set."""
        return f"{self.name} ({self._kind})"

    def _reserve(self, frames: int) -> NDArray[np.uint8]:
        assert self._kernels is not None
        assert self._folded is not None
        height, width = self._geometry.height, self._geometry.width
        self._network = Network(
            self._folded, self._kernels, frames, (height, width), tiling=self._tiling
        )
        return self._network.rgb

    def _raw_maps(self, frames: int) -> tuple[Array, Array]:
        network = self._network
        if network is None:
            raise FatalError(f"{self.name}: used after it was closed")
        network.run(frames)
        return network.local[:frames], network.globl[:frames]
