"""The native kernels against the definition of what they compute, for every instruction set."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from efficientad_stream.backends.native import packing, winograd
from efficientad_stream.backends.native.library import (
    LINEAR,
    RELU,
    RELU_POOL,
    Kernels,
    NativeUnavailableError,
    Packed,
    levels,
)
from efficientad_stream.backends.native.winograd import POINTS, TILES, cook_toom

Array = np.ndarray


def there() -> list[Any]:
    try:
        return levels()
    except NativeUnavailableError:
        return []


LEVELS = there() or [pytest.param("", marks=pytest.mark.skip(reason="kernels were not built"))]


@pytest.fixture(params=list(itertools.product(LEVELS, (1, 3))), ids=lambda p: f"{p[0]}-{p[1]}")
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    kind, threads = request.param
    opened = Kernels(threads, kind)
    yield opened
    opened.check()
    opened.close()


def noise(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def images(x: Array) -> Tensor:
    """N x C x h x w, double precision."""
    return torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2).double()


def zeros_like(wanted: Tensor) -> Array:
    n, c, h, w = wanted.shape
    return np.zeros((n, h, w, c), np.float32)


def error(found: Array, wanted: Tensor) -> float:
    return float((images(found) - wanted).abs().max() / wanted.abs().max())


def convolved(x: Array, weight: Array, bias: Array, stride: int = 1, pad: int = 0) -> Tensor:
    w, b = torch.from_numpy(weight).double(), torch.from_numpy(bias).double()
    return F.conv2d(images(x), w, b, stride=stride, padding=pad)


def tiled(weight: Array, bias: Array, m: int, kernels: Kernels, chunk: int = 64) -> Packed:
    return Packed(packing.winograd(weight, m, chunk, kernels.panel), bias)


def test_the_generated_source_is_that_of_the_matrices() -> None:
    path = Path(winograd.__file__).with_name("transforms.inl")
    assert path.read_text() == winograd.transforms_source(), "tools/generate_transforms.py"


@pytest.mark.parametrize(("m", "r"), TILES)
def test_cook_toom_is_exact(m: int, r: int) -> None:
    """In one dimension, in fractions: the outputs are the correlation, without an error."""
    tile = cook_toom(m, r)
    n = m + r - 1
    assert len(POINTS[n]) == len(set(POINTS[n])) == n - 1
    data = [Fraction(3 * i * i - 7 * i + 1) for i in range(n)]
    taps = [Fraction(5 - 2 * i, 3) for i in range(r)]
    spread = [sum(a * b for a, b in zip(row, taps, strict=True)) for row in tile.weight]
    moved = [sum(a * b for a, b in zip(row, data, strict=True)) for row in tile.data]
    products = [a * b for a, b in zip(spread, moved, strict=True)]
    found = [sum(a * b for a, b in zip(row, products, strict=True)) for row in tile.output]
    assert found == [sum(data[i + k] * taps[k] for k in range(r)) for i in range(m)]
    for row in tile.data:
        assert 1 <= max(abs(value) for value in row) < 2


def test_bytes_become_numbers_from_0_to_1(kernels: Kernels) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (2, 9, 7, 3), np.uint8)
    framed = np.full((2, 11, 9, 3), 5, np.float32)
    kernels.bytes(rgb, framed[:, 1:-1, 1:-1])()
    np.testing.assert_allclose(framed[:, 1:-1, 1:-1], rgb / 255, rtol=1e-6)
    assert (framed[:, 0] == 5).all()
    assert (framed[:, :, -1] == 5).all()


def test_the_first_layer(kernels: Kernels) -> None:
    x, weight, bias = noise(1, 2, 37, 45, 3), noise(2, 128, 3, 4, 4), noise(3, 128)
    wanted = F.avg_pool2d(F.relu(convolved(x, weight, bias)), 2, 2)
    out = zeros_like(wanted)
    kernels.first(x, Packed(packing.direct(weight, kernels.lanes), bias), out)()
    assert error(out, wanted) < 1e-6


@pytest.mark.parametrize(
    ("r", "stride", "pad", "cin", "cout"),
    [(4, 2, 0, 3, 32), (4, 2, 1, 32, 64), (1, 1, 0, 64, 128), (8, 1, 0, 64, 64), (3, 1, 1, 64, 64)],
)
@pytest.mark.parametrize("relu", [False, True])
def test_convolutions_by_their_definition(  # noqa: PLR0917
    kernels: Kernels, r: int, stride: int, pad: int, cin: int, cout: int, relu: bool
) -> None:
    x, weight, bias = noise(1, 2, 17, 23, cin), noise(2, cout, cin, r, r), noise(3, cout)
    wanted = convolved(x, weight, bias, stride, pad)
    wanted = F.relu(wanted) if relu else wanted
    out = zeros_like(wanted)
    packed = Packed(packing.direct(weight, kernels.panel), bias)
    kernels.direct(x, packed, out, r=r, stride=stride, pad=pad, relu=relu)()
    assert error(out, wanted) < 1e-5


def exactness(m: int) -> float:
    """Of the largest output, for filters of noise and as few as one output."""
    return {4: 3e-5, 6: 5e-4, 7: 5e-4}[m]


@pytest.mark.parametrize(("m", "r"), [tile for tile in TILES if tile != (7, 4)])
@pytest.mark.parametrize("after", [LINEAR, RELU, RELU_POOL])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_winograd_convolutions(m: int, r: int, after: int, data: st.DataObject) -> None:
    kind, threads = data.draw(st.sampled_from(LEVELS)), data.draw(st.integers(1, 3))
    if not isinstance(kind, str):
        pytest.skip("kernels were not built")
    kernels = Kernels(threads, kind)
    pad = data.draw(st.integers(0, 2))
    n, h, w = (data.draw(st.integers(*within)) for within in ((1, 3), (r + 1, 30), (r + 1, 30)))
    x, weight, bias = noise(h, n, h, w, 64), noise(2, 128, 64, r, r), noise(3, 128)
    wanted = convolved(x, weight, bias, 1, pad)
    wanted = wanted if after == LINEAR else F.relu(wanted)
    wanted = F.avg_pool2d(wanted, 2, 2) if after == RELU_POOL else wanted
    out = zeros_like(wanted)
    packed = tiled(weight, bias, m, kernels)
    kernels.winograd(x, packed, out, m=m, r=r, pad=pad, chunk=64, after=after)()
    kernels.check()
    kernels.close()
    assert error(out, wanted) < exactness(m)


@pytest.mark.parametrize("m", [4, 6, 7])
def test_squares_of_two_convolutions(kernels: Kernels, m: int) -> None:
    x, a, b = noise(1, 2, 27, 33, 96), noise(2, 128, 64, 4, 4), noise(3, 128, 64, 4, 4)
    bias = noise(4, 128)
    maps = np.zeros((2, 2, 24, 30), np.float32)
    packed = [tiled(one, bias, m, kernels, 32) for one in (a, b)]
    kernels.squares(
        x, packed[0], packed[1], (maps[0], maps[1]), m=m, r=4, to_a=64, from_b=32, chunk=32
    )()
    for found, part, weight in ((maps[0], x[..., :64], a), (maps[1], x[..., 32:], b)):
        wanted = convolved(part, weight, bias).square().mean(1)
        assert float(np.abs(found - wanted.numpy()).max() / wanted.max()) < exactness(m)


def test_slices_are_taken_as_they_are_and_nothing_else_is_written(kernels: Kernels) -> None:
    x, weight, bias = noise(1, 2, 20, 22, 128), noise(2, 64, 64, 3, 3), noise(3, 64)
    out = np.full((2, 24, 26, 192), 5, np.float32)
    into = out[:, 2:-2, 2:-2, 64:128]
    packed = tiled(weight, bias, 4, kernels)
    kernels.winograd(x[..., 64:], packed, into, m=4, r=3, pad=1, chunk=64, after=LINEAR)()
    assert error(into, convolved(x[..., 64:], weight, bias, 1, 1)) < exactness(4)
    into[:] = 5
    assert (out == 5).all()


@pytest.mark.parametrize("size", [(32, 127), (8, 8), (3, 3), (15, 8)])
def test_bilinear_and_average(kernels: Kernels, size: tuple[int, int]) -> None:
    x = noise(1, 2, 15, 8, 64)
    wanted = F.interpolate(images(x), size=size, mode="bilinear", align_corners=False)
    out = zeros_like(wanted)
    kernels.resize(x, out)()
    assert error(out, wanted) < 3e-6
    wanted = F.adaptive_avg_pool2d(images(x), size)
    kernels.average(x, out)()
    assert error(out, wanted) < 1e-6


def test_difference(kernels: Kernels) -> None:
    a, b = noise(1, 2, 15, 8, 64), noise(2, 2, 15, 8, 64)
    out = np.zeros((2, 15, 8), np.float32)
    kernels.difference(a, b, out)()
    np.testing.assert_allclose(out, ((a - b) ** 2).mean(3), rtol=1e-5)


def test_what_is_not_a_number_stays_so(kernels: Kernels) -> None:
    x, weight, bias = noise(1, 1, 12, 12, 64), noise(2, 64, 64, 3, 3), noise(3, 64)
    x[0, 5, 5, 5] = np.nan
    out = np.zeros((1, 10, 10, 64), np.float32)
    packed = tiled(weight, bias, 4, kernels)
    kernels.winograd(x, packed, out, m=4, r=3, pad=0, chunk=64, after=RELU)()
    assert np.isnan(out).any()


@pytest.mark.parametrize("kind", LEVELS)
def test_the_same_bits_for_any_batch_and_number_of_threads(kind: str) -> None:
    x, weight, bias = noise(1, 3, 40, 41, 64), noise(2, 128, 64, 4, 4), noise(3, 128)
    results = []
    for threads, frames in itertools.product((1, 2, 5), (1, 3)):
        kernels = Kernels(threads, kind)
        packed = tiled(weight, bias, 6, kernels)
        out = np.zeros((3, 37, 38, 128), np.float32)
        call = kernels.winograd(x, packed, out, m=6, r=4, pad=0, chunk=64, after=RELU)
        call.only(frames)
        call()
        results.append(out[0].tobytes())
        assert out[1:].any() == (frames == 3)
        kernels.close()
    assert len(set(results)) == 1


def test_an_unknown_instruction_set() -> None:
    if not there():
        pytest.skip("kernels were not built")
    with pytest.raises(ValueError, match="sse9"):
        Kernels(1, "sse9")
