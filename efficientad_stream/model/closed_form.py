"""A student that begins near its teacher: most of it in closed form, in a minute instead of hours.

A student that begins with random weights spends its first tens of thousands of steps on learning
what every patch description network knows. Here its first two layers begin as the teacher's; the
layers between begin random, scaled so that all channels vary alike; and the last spatial layer is
solved for: the ridge regression of what the student is to say (the teacher's descriptors, and the
autoencoder's prediction of them) on the features before it, over positions of good images.

The random layers between are what lets it detect: the solution holds on the product's patches, and
on nothing else. Sources: ridge regression on random features, Rahimi and Recht, "Random features
for large-scale kernel machines", NIPS 2007; scaling by data, Mishkin and Matas, "All you need is a
good init", ICLR 2016 (arXiv 1511.06422).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efficientad_stream.core.errors import FatalError
from efficientad_stream.model.networks import PDN
from efficientad_stream.model.widen import SHIFT

RIDGE = 1e-2
"""Weight of the penalty on large coefficients, relative to the mean square of the features."""
SMALLEST_DEVIATION = 1e-4
STEM = ("conv1", "conv2")


class Pair(NamedTuple):
    """What a student sees, and what it is to say: N x 3 x H x W, and N x C x h x w.

    ``inspected`` says where (h x w, bool); None: everywhere.
    """

    x: Tensor
    wanted: Tensor
    inspected: Tensor | None = None


@torch.no_grad()
def begin_student(student: PDN, teacher: PDN, x: Tensor) -> None:
    """The teacher's stem, then random layers up to the one that is solved for.

    Args:
        student: overwritten but for the layers from ``solved_layer`` on.
        teacher: of the same size.
        x: some normalised inputs, N x 3 x H x W, by which the random layers are scaled.
    """
    for name in STEM:
        getattr(student, name).load_state_dict(getattr(teacher, name).state_dict())
    for name in _before(student):
        layer = getattr(student, name)
        if name not in STEM:
            _scatter(layer, x)
        x = _pass(layer, x, pooled=name in STEM)


def solved_layer(student: PDN) -> nn.Conv2d:
    """The last layer with a spatial extent: 4 x 4."""
    return student.conv4 if student.size == "S" else student.conv5


@torch.no_grad()
def solve_student(
    student: PDN,
    pairs: Iterable[Pair],
    positions: int,
    seed: int,
    *,
    bfloat16: bool,
) -> None:
    """Set the last layers of ``student`` to the ridge regression of ``wanted`` on its features.

    Inside of a PDN-M, the solved layer is followed by a ReLU and a 1 x 1 layer: what is wanted is
    lifted above the ReLU by ``SHIFT``, and the 1 x 1 layer takes that off again.

    Args:
        student: begun by ``begin_student``.
        pairs: good images; the order decides rounding.
        positions: drawn at random from each image.
        seed: of the draw.
        bfloat16: convolve in bfloat16; what is solved is float32 all the same.

    Raises:
        FatalError: the features are so alike that nothing can be solved for.
    """
    layer = solved_layer(student)
    gram, moment = None, None
    rng = torch.Generator().manual_seed(seed)
    for pair in pairs:
        with torch.autocast(pair.x.device.type, torch.bfloat16, enabled=bfloat16):
            seen = _features(student, pair.x)
        rows, wanted = _rows(pair, seen.float(), layer.kernel_size[0], positions, rng)
        if gram is None or moment is None:
            gram = rows.new_zeros(rows.shape[1], rows.shape[1])
            moment = rows.new_zeros(rows.shape[1], wanted.shape[1])
        gram.addmm_(rows.T, rows)
        moment.addmm_(rows.T, wanted)
    if gram is None or moment is None:
        raise FatalError("no good image to begin the student on")
    weight, bias = _ridge(gram, moment)
    layer.weight.copy_(weight.T.reshape(layer.weight.shape))
    assert layer.bias is not None
    layer.bias.copy_(bias)
    if student.size == "M":
        _pass_on(student)


def _before(student: PDN) -> tuple[str, ...]:
    """The layers that the solved one builds on."""
    return ("conv1", "conv2", "conv3") if student.size == "S" else (*STEM, "conv3", "conv4")


def _scatter(layer: nn.Conv2d, x: Tensor) -> None:
    """Random directions, each scaled and shifted to mean 0 and deviation 1 over ``x``."""
    fresh = torch.empty(layer.weight.shape)
    nn.init.orthogonal_(fresh)
    layer.weight.copy_(fresh)
    out = F.conv2d(x, layer.weight)
    deviation, mean = torch.std_mean(out, (0, 2, 3))
    deviation.clamp_min_(SMALLEST_DEVIATION)
    layer.weight.div_(deviation.view(-1, 1, 1, 1))
    assert layer.bias is not None
    layer.bias.copy_(-mean / deviation)


def _features(student: PDN, x: Tensor) -> Tensor:
    """What the solved layer sees."""
    for name in _before(student):
        x = _pass(getattr(student, name), x, pooled=name in STEM)
    return x


def _pass(layer: nn.Conv2d, x: Tensor, *, pooled: bool) -> Tensor:
    x = F.relu(F.conv2d(x, layer.weight, layer.bias))
    return F.avg_pool2d(x, 2, 2) if pooled else x


def _rows(
    pair: Pair, seen: Tensor, kernel: int, positions: int, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Neighbourhoods with a 1 appended (P x K + 1) and what is wanted there (P x C), at random."""
    views = seen.unfold(2, kernel, 1).unfold(3, kernel, 1)  # N x C x h x w x kernel x kernel
    n, _, height, width = views.shape[:4]
    drawn = torch.randperm(n * height * width, generator=rng).to(seen.device)
    if pair.inspected is not None:
        drawn = drawn[pair.inspected.flatten()[drawn % (height * width)]]
    drawn = drawn[:positions]
    image, place = drawn // (height * width), drawn % (height * width)
    y, x = place // width, place % width
    rows = views[image, :, y, x].flatten(1)
    return torch.cat([rows, rows.new_ones(len(rows), 1)], 1), pair.wanted[image, :, y, x]


def _ridge(gram: Tensor, moment: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (K x C) and bias (C) of least squared error; large weights cost, a bias does not."""
    diagonal = gram.diagonal()
    diagonal[:-1].add_(RIDGE * diagonal[:-1].mean())
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed or not torch.isfinite(factor).all():
        raise FatalError("the good images are all alike; nothing can be learnt from them")
    solution = torch.cholesky_solve(moment, factor)
    return solution[:-1], solution[-1]


def _pass_on(student: PDN) -> None:
    """Lift the solved layer above its ReLU, and make the 1 x 1 layer behind it undo that."""
    assert student.conv5.bias is not None
    assert student.conv6.bias is not None
    student.conv5.bias.add_(SHIFT)
    channels = student.conv6.out_channels
    student.conv6.weight.copy_(torch.eye(channels)[:, :, None, None])
    student.conv6.bias.fill_(-SHIFT)
