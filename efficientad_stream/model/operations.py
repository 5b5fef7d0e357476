"""How much arithmetic the networks are by their definition, whoever computes them and how."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from efficientad_stream.model.networks import EfficientAD, Size


def operations(size: Size, height: int, width: int) -> int:
    """Floating-point operations (two a multiply-add) of all convolutions for one image.

    By the definition of a convolution; a faster algorithm computes the same with fewer.
    """
    with torch.device("meta"):
        net = EfficientAD(size)
        image = torch.empty(1, 3, height, width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.raw_maps(image)
    return int(counter.get_total_flops())
