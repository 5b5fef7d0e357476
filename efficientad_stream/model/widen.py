"""Starting one network from another, so that a distillation does not begin at nothing.

Source of the idea: Chen et al., "Net2Net: accelerating learning via knowledge transfer", ICLR 2016
(arXiv 1511.05641). The new network computes what the old one does, and has room to learn more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from efficientad_stream.core.errors import ConfigError
from efficientad_stream.model.networks import PDN, TEACHER_CHANNELS

SHIFT = 5.0
"""The descriptors of a PDN-S pass a ReLU inside of a PDN-M; so much is added before and taken off
after. They have a deviation below 1, so almost none is cut off."""


@torch.no_grad()
def start_from(pdn: PDN, trained: PDN) -> None:
    """Make ``pdn`` compute what ``trained`` does: a copy, or a PDN-S inside of a PDN-M.

    Inside of a PDN-M, its 1 x 1 layers pass the features on unchanged; the channels that the PDN-S
    lacks keep their initial weights, and nothing listens to them yet.

    Raises:
        ConfigError: a PDN-M cannot begin a PDN-S.
    """
    if pdn.size == trained.size:
        pdn.load_state_dict(trained.state_dict())
        return
    if pdn.size == "S":
        raise ConfigError("a teacher of size M cannot begin one of size S")
    _embed(pdn.conv1, trained.conv1)
    _embed(pdn.conv2, trained.conv2)
    kept = trained.conv2.out_channels
    eye = torch.eye(kept, device=pdn.conv3.weight.device)[:, :, None, None]
    _put(pdn.conv3, eye, torch.zeros(kept))
    _embed(pdn.conv4, trained.conv3)
    _embed(pdn.conv5, trained.conv4)
    assert pdn.conv5.bias is not None
    pdn.conv5.bias.add_(SHIFT)
    eye = torch.eye(TEACHER_CHANNELS, device=pdn.conv6.weight.device)[:, :, None, None]
    _put(pdn.conv6, eye, torch.full((TEACHER_CHANNELS,), -SHIFT))


def _embed(wide: nn.Conv2d, narrow: nn.Conv2d) -> None:
    assert narrow.bias is not None
    _put(wide, narrow.weight, narrow.bias)


def _put(wide: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """``weight`` and ``bias`` as the first channels of ``wide``, deaf to all further inputs."""
    out, cin = weight.shape[:2]
    assert wide.bias is not None
    wide.weight[:out] = 0.0
    wide.weight[:out, :cin] = weight
    wide.bias[:out] = bias


@torch.no_grad()
def calm(norm: nn.BatchNorm2d, values: Tensor) -> None:
    """Let ``norm`` change nothing about ``values`` (N x C x H x W) or others like them."""
    variance, mean = torch.var_mean(values.float(), (0, 2, 3), correction=0)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_(torch.sqrt(variance + norm.eps))
    norm.bias.copy_(mean)
