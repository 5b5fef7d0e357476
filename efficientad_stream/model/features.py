"""The teacher's descriptors of the good images: computed once where nothing is augmented."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from efficientad_stream.core.types import PixelArray
from efficientad_stream.model.networks import TEACHER_CHANNELS, EfficientAD

CACHE_BYTES = 2 << 30
"""The descriptors of all good images are kept if they are no larger; fixed, so that what is kept,
and with it the last bit of the result, does not depend on who else uses the machine."""
SMALLEST_STD = 1e-6
"""A teacher channel that never changes on good parts must not be divided by zero."""


def to_rgb(images: Sequence[PixelArray], device: str) -> Tensor:
    """Prepared images as N x 3 x H x W in [0, 1], channels last."""
    pixels = torch.from_numpy(np.stack(images)).to(device)
    return pixels.permute(0, 3, 1, 2).float().div_(255)


class TeacherFeatures:
    """What the teacher says of each good image, normalised per channel over all of them.

    Args:
        net: whose teacher and normalisation are used; ``measure`` sets the latter.
        good: prepared images, h x w x 3 RGB, uint8.
        device: where ``net`` is.
        bfloat16: convolve, and keep, in bfloat16.
        inspected: h x w, bool: the positions that the normalisation is taken over; None: all.
    """

    def __init__(
        self,
        net: EfficientAD,
        good: Sequence[PixelArray],
        device: str,
        *,
        bfloat16: bool,
        inspected: Tensor | None = None,
    ) -> None:
        self._inspected = inspected
        self._net, self._good = net, good
        self._device, self._bfloat16 = device, bfloat16
        self._kept: dict[int, Tensor] = {}
        self._keep: bool | None = None
        self.seconds_each = 0.0
        """What describing an image took, once ``measure`` was called."""

    @torch.no_grad()
    def raw(self, index: int) -> Tensor:
        """Descriptors of a good image as the teacher gives them, 1 x 384 x h x w."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        x = self._net.normalise_input(to_rgb([self._good[index]], self._device))
        with torch.autocast(self._device, torch.bfloat16, enabled=self._bfloat16):
            found: Tensor = self._net.teacher(x, padding=False)
        if self._keep is None:
            self._keep = found.nbytes * len(self._good) <= CACHE_BYTES
        if self._keep:
            self._kept[index] = found
        return found

    def __getitem__(self, index: int) -> Tensor:
        """The same, normalised: 1 x 384 x h x w, float32."""
        mean, std = self._net.mean[:, None, None], self._net.std[:, None, None]
        return (self.raw(index).float() - mean) / std

    @torch.no_grad()
    def measure(self, stop: Callable[[], bool]) -> bool:
        """Set the net's mean and deviation of each channel over the good images (section 3.2).

        Returns:
            False if ``stop`` said so before the end.
        """
        sums = torch.zeros(2, TEACHER_CHANNELS, dtype=torch.float64)
        positions, begun = 0, time.monotonic()
        for index in range(len(self._good)):
            if stop():
                return False
            flat = self.raw(index)[0].double().flatten(1)
            if self._inspected is not None:
                flat = flat[:, self._inspected.flatten()]
            sums += torch.stack([flat.sum(1), flat.square().sum(1)]).cpu()
            positions += flat.shape[1]
        self.seconds_each = (time.monotonic() - begun) / len(self._good)
        mean, square = sums / positions
        self._net.mean.copy_(mean)
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        self._net.std.copy_(deviation.clamp_min(SMALLEST_STD))
        return True
