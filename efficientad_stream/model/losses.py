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


def hard_loss(squared: Tensor, p_hard: float = P_HARD, inspected: Tensor | None = None) -> Tensor:
    """Mean of the elements at or above the ``p_hard`` quantile of ``squared`` (any shape).

    Only of those where ``inspected`` (the last two dimensions, bool) is true; 0 if there are none.

    The quantile lies at position p (n - 1) of the sorted elements. Whatever it interpolates to,
    the elements at or above it are those not below the next element; so that one is looked up by a
    selection, which has no limit on n.
    """
    flat = squared.flatten() if inspected is None else squared[..., inspected].flatten()
    if not flat.numel():
        return flat.sum()
    kept = flat.numel() - math.ceil(p_hard * (flat.numel() - 1))
    with torch.no_grad():
        least = torch.topk(flat, kept, sorted=False).values.min()
        hard = flat >= least
    return torch.where(hard, flat, 0.0).sum() / hard.sum()


class Views(NamedTuple):
    """What one step is computed from.

    Attributes:
        window: good images, or as much of them as the student sees: B x 3 x h x w, normalised.
        target: the teacher's descriptors of it, B x 384 x h' x w', normalised.
        natural: natural images of the same size; None for no penalty.
        copy: the augmented copy that the student's second half sees; None: ``window`` serves both.
        copy_target: the teacher's descriptors of the copy, or of ``window``.
        predicted: the autoencoder's prediction of them.
        inspected: h' x w', bool: the positions that count in the hard loss; None: all.
    """

    window: Tensor
    target: Tensor
    natural: Tensor | None
    copy: Tensor | None
    copy_target: Tensor
    predicted: Tensor
    inspected: Tensor | None = None


def losses(net: EfficientAD, views: Views, p_hard: float, bfloat16: bool) -> Losses:
    """All four losses of one step.

    The student sees all images in one batch, and computes of its last layer only the half that
    each of them is compared in; both are exact.

    Args:
        net: in training mode; the teacher is frozen.
        views: see there.
        p_hard: mining factor; 0 for a plain mean.
        bfloat16: convolve in bfloat16; targets and losses are float32 all the same.
    """
    seen = [v for v in (views.window, views.natural, views.copy) if v is not None]
    x = torch.cat(seen).contiguous(memory_format=torch.channels_last)
    count, front = len(views.window), slice(TEACHER_CHANNELS)
    back = slice(TEACHER_CHANNELS, None)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
        parts = list(torch.split(net.student.hidden(x, padding=False), [len(v) for v in seen]))
        like_teacher = _last(net.student, parts[0], front).float()
        penalty = x.new_zeros(())
        if views.natural is not None:
            penalty = _last(net.student, parts[1], front).float().square().mean()
        copy = parts[0] if views.copy is None else parts[-1]
        like_autoencoder = _last(net.student, copy[:count], back).float()
    predicted = views.predicted.float()
    return Losses(
        hard=hard_loss((views.target - like_teacher).square(), p_hard, views.inspected),
        penalty=penalty,
        autoencoder=F.mse_loss(predicted, views.copy_target),
        student_autoencoder=F.mse_loss(like_autoencoder, predicted),
    )


def _last(pdn: PDN, hidden: Tensor, channels: slice) -> Tensor:
    """Some of the output channels of ``pdn`` from what precedes its last convolution."""
    layer = pdn.last
    bias = None if layer.bias is None else layer.bias[channels]
    return F.conv2d(hidden, layer.weight[channels], bias)
