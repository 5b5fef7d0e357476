"""One buffer of the frame ring."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from efficientad_stream.core.types import PixelArray

Allocate = Callable[[int], PixelArray]
"""Makes flat memory of so many bytes; page-locked for a GPU."""


def allocate(nbytes: int) -> PixelArray:
    """Ordinary memory."""
    return np.empty(nbytes, np.uint8)


class Slot:
    """One buffer; its memory only grows."""

    __slots__ = ("_allocate", "_memory", "_pixels", "holds", "index", "lent")

    def __init__(self, index: int, memory: Allocate = allocate) -> None:
        self.index = index
        self.holds = 0
        self.lent = False
        self._allocate = memory
        self._memory = memory(0)
        self._pixels: PixelArray | None = None

    @property
    def pixels(self) -> PixelArray | None:
        """The view that was asked for last."""
        return self._pixels

    def view(self, height: int, width: int, channels: int) -> PixelArray:
        """The memory as a frame: H x W if ``channels`` is 1, else H x W x channels, uint8.

        The same array as long as the shape is the same; allocates only to grow.
        """
        shape = (height, width) if channels == 1 else (height, width, channels)
        if self._pixels is None or self._pixels.shape != shape:
            need = height * width * channels
            if need > self._memory.size:
                self._memory = self._allocate(need)
            self._pixels = self._memory[:need].reshape(shape)
        return self._pixels
