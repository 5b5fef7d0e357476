"""Early stopping: when good parts that training does not see are no longer described any better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from efficientad_stream.core.types import PixelArray
from efficientad_stream.model.features import to_rgb
from efficientad_stream.model.networks import EfficientAD

CHECK_STEPS = 250
"""Student steps from one look at the held-back images to the next."""
CHECK_IMAGES = 16
"""Held-back images that are looked at, at most."""
SMALLEST_GAIN = 0.005
"""A loss that falls by a smaller share than this has not improved."""


class Plateau(NamedTuple):
    """What the looks at the held-back images have shown so far.

    Attributes:
        best: the lowest loss.
        since: looks since then.
    """

    best: float = math.inf
    since: int = 0

    def after(self, loss: float) -> Plateau:
        """With one more look."""
        if loss < self.best * (1 - SMALLEST_GAIN):
            return Plateau(loss)
        return self._replace(since=self.since + 1)


@torch.no_grad()
def held_back_loss(
    net: EfficientAD,
    held: Sequence[PixelArray],
    device: str,
    inspected: Tensor | None = None,
    *,
    bfloat16: bool,
) -> float:
    """Mean of both unnormalised maps over some of ``held`` (h x w x 3 RGB, uint8).

    ``inspected`` (h x w, bool) says which positions count; None: all.
    """
    training = net.training
    net.eval()
    total = 0.0
    some = range(0, len(held), -(-len(held) // CHECK_IMAGES))
    for index in some:
        rgb = to_rgb([held[index]], device)
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            maps = net.raw_maps(rgb)
        both = maps.local.float() + maps.globl.float()
        total += float((both if inspected is None else both[:, inspected]).mean())
    net.train(training)
    return total / len(some)
