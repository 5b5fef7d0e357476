from __future__ import annotations

import pytest
import torch
from torch import Tensor

from efficientad_stream.model.losses import P_HARD, Views, hard_loss, jitter, losses
from efficientad_stream.model.networks import TEACHER_CHANNELS, EfficientAD, Size


@pytest.mark.parametrize("count", [1, 2, 999, 1000, 1001, 5000])
@pytest.mark.parametrize("p", [0.0, 0.5, 0.999, 1.0])
def test_hard_loss_is_the_mean_at_or_above_the_quantile(count: int, p: float) -> None:
    torch.manual_seed(count)
    for squared in (torch.rand(count), torch.randint(0, 5, (count,)).float()):
        values = squared.double()
        wanted = values[values >= torch.quantile(values, p)].mean()
        assert hard_loss(squared, p).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_hard_loss_moves_only_what_is_hard() -> None:
    squared = torch.arange(2000.0).requires_grad_()
    hard_loss(squared).backward()  # type: ignore[no-untyped-call]
    assert squared.grad is not None
    assert squared.grad.nonzero().flatten().tolist() == [1998, 1999]
    assert squared.grad.sum() == 1


def test_jitters_by_hand() -> None:
    rgb = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1).repeat(2, 1, 4, 4)
    rgb[1] = 0.4
    assert torch.allclose(
        jitter(rgb, "brightness", 1.2)[0, :, 0, 0], torch.tensor([0.24, 0.6, 1.0])
    )
    grey = 0.2989 * 0.2 + 0.587 * 0.5 + 0.114 * 0.9
    wanted = torch.tensor([1.1 * v - 0.1 * grey for v in (0.2, 0.5, 0.9)])
    assert torch.allclose(jitter(rgb, "saturation", 1.1)[0, :, 0, 0], wanted)
    assert torch.allclose(jitter(rgb, "contrast", 1.1)[0, :, 0, 0], wanted)
    assert torch.allclose(jitter(rgb, "saturation", 0.8)[1], rgb[1], atol=1e-4)


def test_contrast_is_against_the_mean_of_each_image_and_nothing_leaves_the_range() -> None:
    rgb = torch.zeros(1, 3, 4, 4)
    rgb[..., :2] = 1.0
    flat = jitter(rgb, "contrast", 0.8)
    assert torch.allclose(flat[..., 0], torch.tensor(0.9), atol=1e-4)
    assert torch.allclose(flat[..., 3], torch.tensor(0.1), atol=1e-4)
    assert jitter(rgb, "contrast", 1.2).max() == 1.0
    assert jitter(rgb, "contrast", 1.2).min() == 0.0


def views(net: EfficientAD, good: Tensor, copy: Tensor, natural: Tensor | None) -> Views:
    x, xc = net.normalise_input(good), net.normalise_input(copy)
    with torch.no_grad():
        target, copy_target = net.teach(x), net.teach(xc)
    size = (target.shape[2], target.shape[3])
    xn = None if natural is None else net.normalise_input(natural)
    return Views(x, target, xn, xc, copy_target, net.autoencoder(xc, size))


def test_one_view_for_both_halves_is_two_equal_ones() -> None:
    torch.manual_seed(0)
    net = EfficientAD("S").eval()
    good = torch.rand(1, 3, 128, 128)
    two = views(net, good, good, None)
    found = [losses(net, seen, 0.0, bfloat16=False) for seen in (two, two._replace(copy=None))]
    for one, other in zip(*found, strict=True):
        assert one.item() == pytest.approx(other.item(), rel=1e-5)


@pytest.mark.parametrize("size", ["S", "M"])
def test_one_batch_and_half_layers_change_nothing(size: Size) -> None:
    torch.manual_seed(0)
    net = EfficientAD(size).eval()
    net.mean.normal_()
    net.std.uniform_(0.5, 2)
    good, copy, natural = torch.rand(3, 1, 3, 128, 128).unbind()
    found = losses(net, views(net, good, copy, natural), P_HARD, bfloat16=False)
    with torch.no_grad():
        x, xc, xn = (net.normalise_input(part) for part in (good, copy, natural))
        target, copy_target = net.teach(x), net.teach(xc)
        both = net.student(x, padding=False)[:, :TEACHER_CHANNELS]
        predicted = net.autoencoder(xc, (24, 24))
        same = net.student(xc, padding=False)[:, TEACHER_CHANNELS:]
        penalty = net.student(xn, padding=False)[:, :TEACHER_CHANNELS].square().mean()
        wanted = (
            hard_loss((target - both).square()),
            penalty,
            (copy_target - predicted).square().mean(),
            (predicted - same).square().mean(),
        )
    for one, other in zip(found, wanted, strict=True):
        assert one.item() == pytest.approx(other.item(), rel=1e-4)
    assert found.total().item() == pytest.approx(sum(v.item() for v in wanted), rel=1e-4)


def test_every_trained_weight_is_moved_and_the_teacher_is_not() -> None:
    torch.manual_seed(0)
    net = EfficientAD("S").train()
    good, copy = torch.rand(2, 1, 3, 128, 128).unbind()
    found = losses(net, views(net, good, copy, None), P_HARD, bfloat16=False)
    assert found.penalty.item() == 0.0
    found.total().backward()  # type: ignore[no-untyped-call]
    trained = [*net.student.parameters(), *net.autoencoder.parameters()]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    assert all(p.grad is None for p in net.teacher.parameters())


def test_bfloat16_stays_close() -> None:
    torch.manual_seed(0)
    net = EfficientAD("S").eval()
    good, copy, natural = torch.rand(3, 1, 3, 128, 128).unbind()
    with torch.no_grad():
        seen = views(net, good, copy, natural)
        exact, coarse = (losses(net, seen, P_HARD, bfloat16=b) for b in (False, True))
    assert all(value.dtype == torch.float32 for value in coarse)
    for one, other in zip(exact, coarse, strict=True):
        assert other.item() == pytest.approx(one.item(), rel=0.05)


def test_only_what_is_inspected_is_hard() -> None:
    squared = torch.arange(24.0).reshape(1, 2, 3, 4)
    counts = torch.zeros(3, 4, dtype=torch.bool)
    counts[0, 1] = counts[1, 2] = True
    assert hard_loss(squared, 0.0, counts) == (1 + 6 + 13 + 18) / 4
    assert hard_loss(squared, 1.0, counts) == 18
    nothing = hard_loss(squared.requires_grad_(), 0.5, torch.zeros_like(counts))
    nothing.backward()  # type: ignore[no-untyped-call]
    assert nothing == 0
    assert squared.grad is not None
    assert not squared.grad.any()
