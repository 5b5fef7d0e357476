"""The frozen form of the networks for inspection: the same maps from fewer operations."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from efficientad_stream.core.recipe import Quantiles
from efficientad_stream.model.networks import (
    PDN,
    TEACHER_CHANNELS,
    Autoencoder,
    EfficientAD,
    Maps,
    convolve,
    normalise_maps,
    only_inspected,
)


class FoldedEfficientAD(nn.Module):
    """The frozen form for inspection; the same scores and maps from fewer operations.

    What falls out of the mathematics: the ImageNet normalisation of the input goes into the first
    convolutions (exact, because inspection pads nothing; the autoencoder's first convolution pads,
    and is therefore fed a constant border in place of zeros), the teacher's channel mean and
    deviation go into its last convolution, and the first convolutions of teacher and student
    become one.

    Args:
        net: the trained networks; copied.
        quantiles: that the maps are normalised by.
        inspected: positions of a map that count (``frames.inspected``); None: all.
    """

    border: Tensor
    inspected: Tensor | None

    def __init__(
        self, net: EfficientAD, quantiles: Quantiles, inspected: NDArray[np.bool_] | None = None
    ) -> None:
        super().__init__()
        self.quantiles = quantiles
        self.size = net.teacher.size
        self.wide = net.teacher.conv1.out_channels
        self.teacher = PDN(self.size)
        self.teacher.load_state_dict(net.teacher.state_dict())
        self.student = PDN(self.size, 2 * TEACHER_CHANNELS)
        self.student.load_state_dict(net.student.state_dict())
        self.autoencoder = Autoencoder()
        self.autoencoder.load_state_dict(net.autoencoder.state_dict())
        _fold_output(self.teacher.last, net.mean, net.std)
        mean, std = net.rgb_mean.flatten(), net.rgb_std.flatten()
        for layer in (self.teacher.conv1, self.student.conv1, self.autoencoder.enc1):
            _fold_input(layer, mean, std)
        self.conv1 = nn.Conv2d(3, 2 * self.wide, 4)
        self.conv1.load_state_dict(
            {
                name: torch.cat([value, self.student.conv1.state_dict()[name]])
                for name, value in self.teacher.conv1.state_dict().items()
            }
        )
        self.register_buffer("border", mean.view(1, 3, 1, 1).clone(), persistent=False)
        counts = None if inspected is None else torch.from_numpy(inspected.astype(np.float32))
        self.register_buffer("inspected", counts, persistent=False)
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def forward(self, rgb: Tensor) -> tuple[Tensor, Maps]:
        """Combined and normalised maps of ``rgb`` (N x 3 x H x W in [0, 1]), as ``EfficientAD``."""
        raw = only_inspected(self.raw_maps(rgb), self.inspected)
        maps = normalise_maps(raw, self.quantiles)
        return (maps.local + maps.globl) / 2, maps

    @torch.inference_mode()
    def raw_maps(self, rgb: Tensor) -> Maps:
        """The maps before normalisation."""
        hidden = F.avg_pool2d(F.relu(self.conv1(rgb)), 2, 2)
        target = self._tail(self.teacher, hidden[:, : self.wide])
        student = self._tail(self.student, hidden[:, self.wide :])
        predicted = self._reconstruct(rgb, (target.shape[2], target.shape[3]))
        return Maps(
            (target - student[:, :TEACHER_CHANNELS]).square().mean(1),
            (predicted - student[:, TEACHER_CHANNELS:]).square().mean(1),
        )

    def _tail(self, pdn: PDN, x: Tensor) -> Tensor:
        """What follows a PDN's first convolution and pooling."""
        x = F.avg_pool2d(F.relu(convolve(pdn.conv2, x, False)), 2, 2)
        x = F.relu(convolve(pdn.conv3, x, False))
        if self.size == "M":
            x = F.relu(pdn.conv5(F.relu(convolve(pdn.conv4, x, False))))
        descriptors: Tensor = pdn.last(x)
        return descriptors

    def _reconstruct(self, rgb: Tensor, out_size: tuple[int, int]) -> Tensor:
        """The autoencoder with the padding of its first layer made explicit.

        Zero after normalisation is the ImageNet mean before it, so the border holds the mean.
        """
        n, _, height, width = rgb.shape
        framed = self.border.expand(n, 3, height + 2, width + 2).contiguous()
        framed[:, :, 1:-1, 1:-1] = rgb
        return self.autoencoder.from_framed(framed, out_size)


def _fold_input(layer: nn.Conv2d, mean: Tensor, std: Tensor) -> None:
    """Make ``layer(rgb)`` equal ``layer((rgb - mean) / std)`` where it does not pad."""
    weight = layer.weight.data.double() / std.double().view(1, 3, 1, 1)
    assert layer.bias is not None
    shift = (weight * mean.double().view(1, 3, 1, 1)).sum((1, 2, 3))
    layer.bias.data = (layer.bias.data.double() - shift).float()
    layer.weight.data = weight.float()


def _fold_output(layer: nn.Conv2d, mean: Tensor, std: Tensor) -> None:
    """Make ``layer(x)`` equal ``(layer(x) - mean) / std`` per channel."""
    assert layer.bias is not None
    layer.bias.data = ((layer.bias.data.double() - mean.double()) / std.double()).float()
    layer.weight.data = (layer.weight.data.double() / std.double().view(-1, 1, 1, 1)).float()
