"""The four losses that a student and an autoencoder learn from.

Source: arXiv 2303.14535, sections 3.2 and 3.3.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from efficientad_stream.model.networks import PDN, TEACHER_CHANNELS, EfficientAD

P_HARD = 0.999
"""Mining factor: only outputs at or above this quantile of the squared differences count."""
JITTERS = ("brightness", "contrast", "saturation")
JITTER_RANGE = (0.8, 1.2)
LUMA = (0.2989, 0.587, 0.114)
"""Weights of R, G and B in a grey value (ITU-R BT.601)."""

Jitter = Literal["brightness", "contrast", "saturation"]


class Losses(NamedTuple):
    """The parts of the loss, each a float32 scalar; their sum is the loss."""

    hard: Tensor
    penalty: Tensor
    autoencoder: Tensor
    student_autoencoder: Tensor

    def total(self) -> Tensor:
        """What is minimised."""
        return self.hard + self.penalty + self.autoencoder + self.student_autoencoder


def jitter(rgb: Tensor, kind: Jitter, factor: float) -> Tensor:
    """One colour augmentation of ``rgb`` (N x 3 x H x W in [0, 1]), clipped to [0, 1].

    Brightness blends with black, contrast with the image's mean grey, saturation with the image in
    grey: ``factor`` times the image plus (1 - ``factor``) times the other.
    """
    if kind == "brightness":
        return (rgb * factor).clamp(0, 1)
    luma = torch.tensor(LUMA, device=rgb.device).view(1, 3, 1, 1)
    grey = (rgb * luma).sum(1, keepdim=True)
    other = grey.mean((1, 2, 3), keepdim=True) if kind == "contrast" else grey
    return (factor * rgb + (1 - factor) * other).clamp(0, 1)


def hard_loss(squared: Tensor, p_hard: float = P_HARD) -> Tensor:
    """Mean of the elements at or above the ``p_hard`` quantile of ``squared`` (any shape).

    The quantile lies at position p (n - 1) of the sorted elements. Whatever it interpolates to,
    the elements at or above it are those not below the next element; so that one is looked up by a
    selection, which has no limit on n.
    """
    flat = squared.flatten()
    kept = flat.numel() - math.ceil(p_hard * (flat.numel() - 1))
    with torch.no_grad():
        least = torch.topk(flat, kept, sorted=False).values.min()
        hard = flat >= least
    return torch.where(hard, flat, 0.0).sum() / hard.sum()


def losses(
    net: EfficientAD, good: Tensor, jittered: Tensor, natural: Tensor | None, bfloat16: bool
) -> Losses:
    """All four losses of one step.

    The student sees good, natural and augmented images in one batch, and computes of its last layer
    only the half that each of them is compared in; both are exact.

    Args:
        net: in training mode; the teacher is frozen.
        good: B x 3 x H x W, RGB in [0, 1].
        jittered: the augmented copy of ``good``.
        natural: as ``good``; None for no penalty.
        bfloat16: convolve in bfloat16; targets and losses are float32 all the same.
    """
    count = len(good)
    for_teacher = good if natural is None else torch.cat([good, natural])
    x = net.normalise_input(torch.cat([for_teacher, jittered]))
    x = x.contiguous(memory_format=torch.channels_last)
    copy = x[len(for_teacher) :]
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
        with torch.no_grad():
            targets = net.teach(torch.cat([x[:count], copy])).float()
            target, copy_target = torch.split(targets, count)
        hidden = net.student.hidden(x, padding=False)
        first, second = torch.split(hidden, [len(for_teacher), count])
        like_teacher = _last(net.student, first, slice(TEACHER_CHANNELS)).float()
        like_autoencoder = _last(net.student, second, slice(TEACHER_CHANNELS, None)).float()
        predicted = net.autoencoder(copy, (target.shape[2], target.shape[3])).float()
    like_good, like_natural = torch.split(like_teacher, [count, len(for_teacher) - count])
    return Losses(
        hard=hard_loss((target - like_good).square()),
        penalty=x.new_zeros(()) if natural is None else like_natural.square().mean(),
        autoencoder=F.mse_loss(predicted, copy_target),
        student_autoencoder=F.mse_loss(like_autoencoder, predicted),
    )


def _last(pdn: PDN, hidden: Tensor, channels: slice) -> Tensor:
    """Some of the output channels of ``pdn`` from what precedes its last convolution."""
    layer = pdn.last
    bias = None if layer.bias is None else layer.bias[channels]
    return F.conv2d(hidden, layer.weight[channels], bias)
