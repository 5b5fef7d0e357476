"""EfficientAD: the whole network in one file.

Sources: arXiv 2303.14535, tables 6 to 9 for the layers and sections 3.2 to 3.4 for the maps.

Shapes below are for 256 x 256 pixels. All networks take RGB normalised as ImageNet is
(``IMAGENET_MEAN``, ``IMAGENET_STD``), N x 3 x H x W, float32; ``EfficientAD`` takes RGB in [0, 1].
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efficientad_stream.core.recipe import Quantiles

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TEACHER_CHANNELS = 384
MAP_GAIN = 0.1
"""The normalised map is 0 at the a quantile and this at the b quantile (section 3.4)."""

Size = Literal["S", "M"]
Net = TypeVar("Net", bound=nn.Module)


class PDN(nn.Module):
    """A patch description network: each output position describes the 33 x 33 pixels around it.

    Input N x 3 x H x W; output N x ``out_channels`` x H/4 x W/4 with padding (64 x 64), eight fewer
    each way without (56 x 56). Both agree where the padding is out of sight: output (y, x) without
    padding is output (y + 4, x + 4) with it.
    """

    def __init__(self, size: Size, out_channels: int = TEACHER_CHANNELS) -> None:
        super().__init__()
        self.size = size
        wide = 128 if size == "S" else 256
        self.conv1 = nn.Conv2d(3, wide, 4, padding=3)
        self.conv2 = nn.Conv2d(wide, 2 * wide, 4, padding=3)
        if size == "S":
            self.conv3 = nn.Conv2d(2 * wide, 2 * wide, 3, padding=1)
            self.conv4 = nn.Conv2d(2 * wide, out_channels, 4)
        else:
            self.conv3 = nn.Conv2d(2 * wide, 2 * wide, 1)
            self.conv4 = nn.Conv2d(2 * wide, 2 * wide, 3, padding=1)
            self.conv5 = nn.Conv2d(2 * wide, out_channels, 4)
            self.conv6 = nn.Conv2d(out_channels, out_channels, 1)

    def forward(self, x: Tensor, padding: bool) -> Tensor:
        """Descriptors of ``x``; ``padding`` on for distillation, off for everything else."""
        descriptors: Tensor = self.last(self.hidden(x, padding))
        return descriptors

    @property
    def last(self) -> nn.Conv2d:
        """The last convolution: each of its outputs is computed from ``hidden`` alone."""
        return self.conv4 if self.size == "S" else self.conv6

    def hidden(self, x: Tensor, padding: bool) -> Tensor:
        """Everything before the last convolution."""
        pool = 1 if padding else 0
        x = F.avg_pool2d(F.relu(convolve(self.conv1, x, padding)), 2, 2, pool)
        x = F.avg_pool2d(F.relu(convolve(self.conv2, x, padding)), 2, 2, pool)
        x = F.relu(convolve(self.conv3, x, padding))
        if self.size == "S":
            return x
        return F.relu(self.conv5(F.relu(convolve(self.conv4, x, padding))))


def convolve(layer: nn.Conv2d, x: Tensor, padding: bool) -> Tensor:
    """``layer`` with its own padding or without any."""
    return F.conv2d(x, layer.weight, layer.bias, padding=layer.padding if padding else 0)


class Autoencoder(nn.Module):
    """Encodes the whole image into 64 numbers and predicts the teacher's output from them.

    Input N x 3 x H x W (multiples of 32 from 128); output N x 384 x ``out_size``.
    At 256 px the encoder ends in an 8 x 8 convolution to 1 x 1. At other sizes that kernel runs
    over an 8 x 8 adaptive average of the last stage, so the bottleneck stays 64 numbers and one
    set of weights fits all sizes; at 256 px the average is the identity.
    """

    LATENT = 8

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 32, 64, 64, 64)
        self.enc1, self.enc2, self.enc3, self.enc4, self.enc5 = (
            nn.Conv2d(cin, cout, 4, stride=2, padding=1) for cin, cout in pairwise(widths)
        )
        self.enc6 = nn.Conv2d(64, 64, self.LATENT)
        self.dec1, self.dec2, self.dec3, self.dec4, self.dec5, self.dec6 = (
            nn.Conv2d(64, 64, 4, padding=2) for _ in range(6)
        )
        self.dec7 = nn.Conv2d(64, 64, 3, padding=1)
        self.dec8 = nn.Conv2d(64, TEACHER_CHANNELS, 3, padding=1)

    def forward(self, x: Tensor, out_size: tuple[int, int]) -> Tensor:
        """The teacher's output as far as 64 numbers tell, N x 384 x ``out_size``."""
        return self.from_framed(F.pad(x, (1, 1, 1, 1)), out_size)

    def from_framed(self, framed: Tensor, out_size: tuple[int, int]) -> Tensor:
        """As ``forward``, from an input that brings the padding of the first layer itself."""
        height, width = framed.shape[2] - 2, framed.shape[3] - 2
        x = F.relu(F.conv2d(framed, self.enc1.weight, self.enc1.bias, stride=2))
        for layer in (self.enc2, self.enc3, self.enc4, self.enc5):
            x = F.relu(layer(x))
        x = self.enc6(F.adaptive_avg_pool2d(x, self.LATENT))
        decoders = (self.dec1, self.dec2, self.dec3, self.dec4, self.dec5, self.dec6)
        for layer, size in zip(decoders, decoder_sizes(height, width), strict=True):
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
            x = F.dropout(F.relu(layer(x)), 0.2, self.training)
        x = F.interpolate(x, size=out_size, mode="bilinear", align_corners=False)
        predicted: Tensor = self.dec8(F.relu(self.dec7(x)))
        return predicted


def decoder_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes that the decoder interpolates to: 3, 8, 15, 32, 63, 127 for 256 pixels.

    Other sizes in proportion: H/64 - 1, H/32, H/16 - 1, H/8, H/4 - 1, H/2 - 1, never below 3.
    """

    def along(n: int) -> list[int]:
        steps = (n // 64 - 1, n // 32, n // 16 - 1, n // 8, n // 4 - 1, n // 2 - 1)
        return [max(3, step) for step in steps]

    return list(zip(along(height), along(width), strict=True))


def channels_last(net: Net) -> Net:
    """``net`` with its weights laid out as the fast convolutions want them."""
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class Maps(NamedTuple):
    """Anomaly maps, N x h x w: ``local`` (student-teacher) and ``globl`` (autoencoder-student)."""

    local: Tensor
    globl: Tensor


class EfficientAD(nn.Module):
    """Teacher, student, autoencoder and the normalisation of their maps.

    Input everywhere: RGB in [0, 1], N x 3 x H x W, float32.
    """

    mean: Tensor
    std: Tensor
    rgb_mean: Tensor
    rgb_std: Tensor

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.teacher = PDN(size).requires_grad_(False)
        self.student = PDN(size, 2 * TEACHER_CHANNELS)
        self.autoencoder = Autoencoder()
        self.register_buffer("mean", torch.zeros(TEACHER_CHANNELS))
        self.register_buffer("std", torch.ones(TEACHER_CHANNELS))
        for name, values in (("rgb_mean", IMAGENET_MEAN), ("rgb_std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def normalise_input(self, rgb: Tensor) -> Tensor:
        """``rgb`` in [0, 1] as the networks were trained to see it."""
        return (rgb - self.rgb_mean) / self.rgb_std

    def teach(self, x: Tensor) -> Tensor:
        """Teacher output, normalised per channel, N x 384 x h x w; ``x`` is a normalised input."""
        target: Tensor = self.teacher(x, padding=False)
        return (target - self.mean[:, None, None]) / self.std[:, None, None]

    def raw_maps(self, rgb: Tensor) -> Maps:
        """The maps before normalisation: mean over channels of the squared differences."""
        x = self.normalise_input(rgb)
        target = self.teach(x)
        student = self.student(x, padding=False)
        predicted = self.autoencoder(x, out_size=(target.shape[2], target.shape[3]))
        return Maps(
            (target - student[:, :TEACHER_CHANNELS]).square().mean(1),
            (predicted - student[:, TEACHER_CHANNELS:]).square().mean(1),
        )

    def forward(
        self, rgb: Tensor, quantiles: Quantiles, inspected: Tensor | None = None
    ) -> tuple[Tensor, Maps]:
        """Combined map N x h x w, and both normalised maps. The score is the map's maximum."""
        maps = normalise_maps(only_inspected(self.raw_maps(rgb), inspected), quantiles)
        return (maps.local + maps.globl) / 2, maps


def normalise_maps(raw: Maps, q: Quantiles) -> Maps:
    """Section 3.4: linear, the a quantile to 0 and the b quantile to 0.1."""
    return Maps(
        MAP_GAIN * (raw.local - q.qa_st) / (q.qb_st - q.qa_st),
        MAP_GAIN * (raw.globl - q.qa_ae) / (q.qb_ae - q.qa_ae),
    )


def only_inspected(raw: Maps, inspected: Tensor | None) -> Maps:
    """``raw`` with no difference at all where nothing is inspected.

    As a raw map is never negative, such a position never has the highest value of a map, however it
    is normalised. What is not finite stays so: networks that fail there cannot be relied on.

    Args:
        raw: maps before normalisation.
        inspected: h x w, 1 where a position counts, else 0; None: all count.
    """
    if inspected is None:
        return raw
    return Maps(raw.local * inspected, raw.globl * inspected)
