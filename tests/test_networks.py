from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from efficientad_stream.core.recipe import Quantiles
from efficientad_stream.model.folded import FoldedEfficientAD
from efficientad_stream.model.networks import (
    PDN,
    Autoencoder,
    EfficientAD,
    Maps,
    Size,
    decoder_sizes,
    normalise_maps,
    only_inspected,
)

SIZES: tuple[Size, ...] = ("S", "M")
INPUTS = [(128, 128), (128, 160), (256, 256), (320, 192), (512, 128)]


def trained_like(size: Size, seed: int = 0) -> EfficientAD:
    """A network whose maps vary and whose constants are not their defaults, as after training."""
    torch.manual_seed(seed)
    net = EfficientAD(size).eval().requires_grad_(False)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.mul_(6**0.5)  # keeps the variance through ReLU
    net.mean.normal_(0, 0.5)
    net.std.uniform_(0.2, 2.0)
    return net


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("height", "width"), INPUTS)
def test_a_pdn_has_a_quarter_of_the_input_padded_and_eight_fewer_unpadded(
    size: Size, height: int, width: int
) -> None:
    with torch.device("meta"):
        pdn = PDN(size, 768)
        x = torch.empty(2, 3, height, width)
        assert pdn(x, padding=True).shape == (2, 768, height // 4, width // 4)
        assert pdn(x, padding=False).shape == (2, 768, height // 4 - 8, width // 4 - 8)


@pytest.mark.parametrize("size", SIZES)
def test_each_descriptor_sees_33_by_33_pixels_and_all_of_them(size: Size) -> None:
    torch.manual_seed(0)
    pdn = PDN(size).double()
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    out = pdn(x, padding=False)
    out[0, :, 3, 5].square().sum().backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(0) > 0
    rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
    assert rows.tolist() == list(range(12, 12 + 33))
    assert columns.tolist() == list(range(20, 20 + 33))


@pytest.mark.parametrize("size", SIZES)
def test_unpadded_is_padded_without_a_border_of_four(size: Size) -> None:
    torch.manual_seed(0)
    pdn = PDN(size)
    x = torch.rand(1, 3, 128, 160)
    with torch.no_grad():
        padded, unpadded = pdn(x, padding=True), pdn(x, padding=False)
    assert torch.allclose(padded[..., 4:-4, 4:-4], unpadded, atol=1e-5)


@pytest.mark.parametrize(("size", "millions", "gflop"), [("S", 8.0, 75.9), ("M", 21.0, 235.0)])
def test_cost_is_that_of_the_paper(size: Size, millions: float, gflop: float) -> None:
    with torch.device("meta"):
        net = EfficientAD(size).eval()
        with FlopCounterMode(display=False) as counter:
            net.raw_maps(torch.empty(1, 3, 256, 256))
    parameters = sum(p.numel() for p in net.parameters())
    assert parameters / 1e6 == pytest.approx(millions, rel=0.03)
    assert counter.get_total_flops() / 1e9 == pytest.approx(gflop, rel=0.03)


def test_hidden_and_last_are_the_whole_pdn() -> None:
    for size in SIZES:
        pdn = PDN(size)
        x = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(pdn.last(pdn.hidden(x, padding=True)), pdn(x, padding=True))


def test_decoder_sizes_of_the_paper() -> None:
    assert decoder_sizes(256, 256) == [(n, n) for n in (3, 8, 15, 32, 63, 127)]
    assert decoder_sizes(128, 512)[0] == (3, 7)


@pytest.mark.parametrize(("height", "width"), INPUTS)
def test_the_autoencoder_squeezes_every_size_through_64_numbers(height: int, width: int) -> None:
    net = Autoencoder().eval()
    latent: list[torch.Size] = []
    net.enc6.register_forward_hook(lambda _m, _i, out: latent.append(out.shape))
    with torch.no_grad():
        out = net(torch.rand(1, 3, height, width), (height // 4 - 8, width // 4 - 8))
    assert latent == [(1, 64, 1, 1)]
    assert out.shape == (1, 384, height // 4 - 8, width // 4 - 8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("height", "width"), [(128, 192)])
def test_folded_is_plain(size: Size, height: int, width: int) -> None:
    net = trained_like(size)
    rgb = torch.rand(1, 3, height, width)
    raw = net.raw_maps(rgb)
    levels = torch.tensor([0.9, 0.995])
    quantiles = Quantiles(
        *raw.local.quantile(levels).tolist(), *raw.globl.quantile(levels).tolist()
    )
    plain, plain_maps = net(rgb, quantiles)
    folded, folded_maps = FoldedEfficientAD(net, quantiles)(rgb)
    for one, other in zip((plain, *plain_maps), (folded, *folded_maps), strict=True):
        assert one.shape == (1, height // 4 - 8, width // 4 - 8)
        assert (one - other).abs().max() < 1e-4
    assert plain.std() > 1e-2, "flat maps could not tell the two apart"


def test_folding_leaves_the_plain_network_as_it_was() -> None:
    net = trained_like("S")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    FoldedEfficientAD(net, Quantiles(0, 1, 0, 1))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_the_quantiles_become_zero_and_a_tenth() -> None:
    q = Quantiles(0.2, 0.6, 1.0, 5.0)
    maps = normalise_maps(Maps(torch.tensor([0.2, 0.6]), torch.tensor([1.0, 5.0])), q)
    assert torch.allclose(maps.local, torch.tensor([0.0, 0.1]))
    assert torch.allclose(maps.globl, torch.tensor([0.0, 0.1]))


def test_the_combined_map_is_the_mean_of_both() -> None:
    net = trained_like("S")
    with torch.no_grad():
        combined, maps = net(torch.rand(1, 3, 128, 128), Quantiles(0.1, 0.3, 0.2, 0.9))
    assert torch.equal(combined, (maps.local + maps.globl) / 2)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_not_inspected_is_never_the_highest(size: Size) -> None:
    net, quantiles = trained_like(size), Quantiles(0.1, 0.3, 0.2, 0.9)
    rgb = torch.rand(2, 3, 128, 160)
    counts = np.random.default_rng(0).random((24, 32)) < 0.3
    with torch.inference_mode():
        everywhere, _ = net(rgb, quantiles)
        combined, maps = net(rgb, quantiles, torch.from_numpy(counts.astype(np.float32)))
    folded, _ = FoldedEfficientAD(net, quantiles, counts)(rgb)
    torch.testing.assert_close(folded, combined, rtol=1e-4, atol=1e-4)
    assert torch.equal(combined[:, counts], everywhere[:, counts])
    lowest = -0.1 * 0.1 / 0.2, -0.1 * 0.2 / 0.7
    for found, low in zip((*maps, combined), (*lowest, sum(lowest) / 2), strict=True):
        assert found[:, ~counts] == pytest.approx(low)
        assert (found[:, counts] > low).all()


def test_networks_that_fail_where_nothing_is_inspected_are_not_relied_on() -> None:
    raw = Maps(torch.tensor([[[1.0, math.nan]]]), torch.tensor([[[1.0, 2.0]]]))
    found = only_inspected(raw, torch.tensor([[1.0, 0.0]]))
    assert found.local[0, 0, 1].isnan()
    assert found.globl.tolist() == [[[1.0, 0.0]]]
