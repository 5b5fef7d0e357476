"""What a teacher is distilled towards: the backbone's features of random views of photographs.

Source: arXiv 2303.14535, section 3.1 and its appendix. What is as in the paper: the backbone sees
each image at twice the size that the PDN sees, its features of two depths are averaged over 3 x 3
neighbours, brought to one size, concatenated to 384 channels and normalised per channel.

The backbone is EfficientNet-Lite2. "mixed" targets: stride 8 gives 48 channels and the expanded 288
pooled to 128, stride 16 gives 88 and 120; together 384. "deep" targets are of stride 16 alone: 88,
120, and the expanded 720 pooled to 176; together 384.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efficientad_stream.core.types import MAP_BORDER, PixelArray
from efficientad_stream.model.backbone import EfficientNetLite2
from efficientad_stream.model.data import read_image
from efficientad_stream.model.networks import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    TEACHER_CHANNELS,
)

VIEW = 256
"""Side of a view in pixels."""
CELL = 4
"""Pixels per position of the target grid: stride of the PDN."""
Kind = Literal["mixed", "deep"]

VIEW_BYTES = 3 * VIEW * VIEW + 2 * TEACHER_CHANNELS * (VIEW // CELL) ** 2
"""Memory of one view and its targets."""


class Target(nn.Module):
    """The 384 target channels of a view, N x 384 x 64 x 64, normalised once ``fit`` was called.

    Args:
        backbone: frozen.
        kind: which of its features, see above.
        scale: it sees a view at so many times the size that the PDN does; the paper: 2.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: EfficientNetLite2, kind: Kind = "mixed", scale: int = 2) -> None:
        super().__init__()
        self.backbone, self.kind, self.scale = backbone, kind, scale
        self.register_buffer("mean", torch.zeros(TEACHER_CHANNELS, 1, 1))
        self.register_buffer("std", torch.ones(TEACHER_CHANNELS, 1, 1))

    @torch.no_grad()
    def forward(self, rgb: Tensor, bfloat16: bool) -> Tensor:
        """Targets of views ``rgb`` (N x 3 x 256 x 256, float in [0, 1])."""
        seen = rgb
        if self.scale != 1:
            factor = float(self.scale)
            seen = F.interpolate(rgb, scale_factor=factor, mode="bilinear", align_corners=False)
        seen = seen.contiguous(memory_format=torch.channels_last)
        with torch.autocast(rgb.device.type, torch.bfloat16, enabled=bfloat16):
            features = self.backbone(seen)
        if self.kind == "mixed":
            parts = [features.stride8, _pooled(features.expanded8, 128)]
            parts += [features.stride16_mid, features.stride16]
        else:
            parts = [features.stride16_mid, features.stride16, _pooled(features.expanded16, 176)]
        smooth = [F.avg_pool2d(f.float(), 3, 1, 1, count_include_pad=False) for f in parts]
        grid = (rgb.shape[2] // CELL, rgb.shape[3] // CELL)
        same = [F.interpolate(f, grid, mode="bilinear", align_corners=False) for f in smooth]
        return (torch.cat(same, 1) - self.mean) / self.std

    def fit(self, views: Iterator[Tensor], count: int, bfloat16: bool) -> None:
        """Mean and deviation of each channel over ``count`` views."""
        total = torch.zeros(2, TEACHER_CHANNELS, dtype=torch.float64)
        positions = 0
        for _ in range(count):
            flat = self(next(views), bfloat16).double().transpose(0, 1).flatten(1).cpu()
            total += torch.stack([flat.sum(1), flat.square().sum(1)])
            positions += flat.shape[1]
        mean, square = total / positions
        self.mean.copy_(mean.view(-1, 1, 1))
        self.std.copy_((square - mean.square()).clamp_min(1e-12).sqrt().view(-1, 1, 1))


def _pooled(features: Tensor, channels: int) -> Tensor:
    """N x C x h x w averaged along its channels to fewer."""
    n, _, height, width = features.shape
    few = F.adaptive_avg_pool1d(features.float().flatten(2).mT, channels)
    return few.mT.reshape(n, channels, height, width)


def random_view(image: PixelArray, rng: random.Random, grey_probability: float) -> PixelArray:
    """A random square of an RGB image, mirrored half of the time, at 256 x 256 pixels."""
    height, width = image.shape[:2]
    side = int(min(height, width) * rng.uniform(0.6, 1.0))
    top, left = rng.randint(0, height - side), rng.randint(0, width - side)
    view = image[top : top + side, left : left + side]
    shrink = cv2.INTER_AREA if side > VIEW else cv2.INTER_LINEAR
    square = cv2.resize(view, (VIEW, VIEW), interpolation=shrink)
    if rng.random() < 0.5:
        square = square[:, ::-1]
    if rng.random() < grey_probability:
        square = cv2.cvtColor(cv2.cvtColor(square, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.ascontiguousarray(square, dtype=np.uint8)


class ViewPool:
    """Views of images and their targets, drawn from at random, renewed one by one.

    Features are computed once for a view, and many crops are drawn from it before it is replaced,
    so that the backbone costs little of each step.
    """

    def __init__(
        self,
        images: Sequence[Path],
        target: Target,
        size: int,
        *,
        bfloat16: bool,
        grey_probability: float,
        seed: int,
    ) -> None:
        self._images, self._target, self._size = images, target, size
        self._bfloat16, self._grey_probability = bfloat16, grey_probability
        self._rng = random.Random(seed)
        device = target.mean.device
        grid = VIEW // CELL
        self._views = torch.zeros(size, 3, VIEW, VIEW, dtype=torch.uint8, device=device)
        self._targets = torch.zeros(
            size, TEACHER_CHANNELS, grid, grid, dtype=torch.bfloat16, device=device
        )
        self._filled = 0
        self._next = 0

    def views(self) -> Iterator[Tensor]:
        """Endless random views as the backbone wants them, 1 x 3 x 256 x 256 in [0, 1].

        Raises:
            ArtifactError: an image cannot be decoded.
        """
        while True:
            path = self._rng.choice(self._images)
            rgb = cv2.cvtColor(read_image(path, 3), cv2.COLOR_BGR2RGB)
            view = random_view(np.asarray(rgb, np.uint8), self._rng, self._grey_probability)
            yield torch.from_numpy(view).to(self._views.device).permute(2, 0, 1)[None] / 255.0

    def renew(self, views: Iterator[Tensor], count: int) -> None:
        """Put ``count`` new views in the place of the oldest."""
        for _ in range(count):
            rgb = next(views)
            self._views[self._next] = (rgb[0] * 255.0).round().to(torch.uint8)
            self._targets[self._next] = self._target(rgb, self._bfloat16)[0]
            self._filled = max(self._filled, self._next + 1)
            self._next = (self._next + 1) % self._size

    def draw(self, batch: int, crop: int, *, padding: bool) -> tuple[Tensor, Tensor]:
        """A batch: crops normalised as ImageNet is, and the targets of the PDN's positions.

        Returns:
            N x 3 x crop x crop and N x 384 x h x w with h = w = crop / 4, eight fewer unpadded.
        """
        cells, border = crop // CELL, 0 if padding else MAP_BORDER
        crops, targets = [], []
        for _ in range(batch):
            index = self._rng.randrange(self._filled)
            row, col = (self._rng.randint(0, VIEW // CELL - cells) for _ in range(2))
            y, x = row * CELL, col * CELL
            crops.append(self._views[index, :, y : y + crop, x : x + crop])
            rows = slice(row + border, row + cells - border)
            cols = slice(col + border, col + cells - border)
            targets.append(self._targets[index, :, rows, cols])
        mean = torch.tensor(IMAGENET_MEAN, device=self._views.device).view(3, 1, 1)
        std = torch.tensor(IMAGENET_STD, device=self._views.device).view(3, 1, 1)
        rgb = torch.stack(crops).float().div_(255.0).sub_(mean).div_(std)
        return rgb.contiguous(memory_format=torch.channels_last), torch.stack(targets).float()
