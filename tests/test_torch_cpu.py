from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from efficientad_stream.backends.torch_cpu import TorchCpuBackend
from efficientad_stream.core.errors import FatalError, FormatError
from efficientad_stream.core.recipe import Geometry, Quantiles, Recipe, ThresholdChoice
from efficientad_stream.core.types import PixelArray
from efficientad_stream.model.artifact import LoadedRecipe
from efficientad_stream.model.frames import prepare
from efficientad_stream.model.networks import EfficientAD


def loaded(channels: int = 3, height: int = 128, width: int = 128) -> LoadedRecipe:
    """A real network with random weights, its map normalisation set to what it says of noise."""
    torch.manual_seed(3)
    net = EfficientAD("S").eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.mul_(2.0)
    with torch.inference_mode():
        raw = net.raw_maps(torch.rand(1, 3, height, width))
    st, ae = (np.quantile(m.numpy(), (0.9, 0.995)).tolist() for m in raw)
    recipe = Recipe(
        "noise", 1, "S", Geometry(height, width, channels), Quantiles(st[0], st[1], ae[0], ae[1]),
        ThresholdChoice(1.0, "manual", "noise", 1), "0" * 64,
    )  # fmt: skip
    return LoadedRecipe(recipe, net)


@pytest.fixture(scope="module")
def recipe() -> LoadedRecipe:
    return loaded()


@pytest.fixture(scope="module")
def backend(recipe: LoadedRecipe) -> TorchCpuBackend:
    return TorchCpuBackend(recipe, threads=2, max_frames=2, maps=True)


def noise(seed: int, *shape: int) -> PixelArray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_agrees_with_the_plain_network(recipe: LoadedRecipe, backend: TorchCpuBackend) -> None:
    frame = noise(1, 200, 300, 3)
    (scores,) = backend.collect(backend.submit([frame]))
    rgb = torch.from_numpy(prepare(frame, recipe.recipe.geometry)).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        combined, maps = recipe.net(rgb, recipe.recipe.quantiles)
    assert scores.score == pytest.approx(float(combined.max()), rel=1e-4, abs=1e-4)
    assert scores.local_score == pytest.approx(float(maps.local.max()), rel=1e-4, abs=1e-4)
    assert scores.global_score == pytest.approx(float(maps.globl.max()), rel=1e-4, abs=1e-4)
    assert scores.anomaly_map is not None
    assert scores.anomaly_map.dtype == np.float32
    assert scores.anomaly_map.shape == tuple(combined.shape[1:])
    np.testing.assert_allclose(scores.anomaly_map, combined[0].numpy(), atol=1e-3)
    assert scores.score == scores.anomaly_map.max()


def test_score_does_not_depend_on_the_batch(backend: TorchCpuBackend) -> None:
    frames = [noise(n, 130 + n, 170, 3) for n in range(4)]
    alone = [backend.collect(backend.submit([frame]))[0] for frame in frames]
    together = backend.collect(backend.submit(frames))  # more than memory was set aside for
    reversed_ = backend.collect(backend.submit(frames[::-1]))[::-1]
    assert len({round(s.score, 4) for s in alone}) == 4
    for one, many, other in zip(alone, together, reversed_, strict=True):
        assert many.score == pytest.approx(one.score, rel=1e-5, abs=1e-5)
        assert other.score == pytest.approx(one.score, rel=1e-5, abs=1e-5)
        assert one.anomaly_map is not None
        assert many.anomaly_map is not None
        np.testing.assert_allclose(many.anomaly_map, one.anomaly_map, atol=1e-5)


def test_maps_are_the_callers_own(backend: TorchCpuBackend) -> None:
    first = backend.collect(backend.submit([noise(1, 128, 150, 3)]))[0].anomaly_map
    assert first is not None
    kept = first.copy()
    backend.collect(backend.submit([noise(2, 128, 150, 3)]))
    np.testing.assert_array_equal(first, kept)


def test_maps_that_nobody_needs_are_not_kept(
    recipe: LoadedRecipe, backend: TorchCpuBackend
) -> None:
    bare = TorchCpuBackend(recipe, threads=2)
    frame = noise(1, 128, 150, 3)
    ((found,), (wanted,)) = (b.collect(b.submit([frame])) for b in (bare, backend))
    assert found.anomaly_map is None
    assert found.score == pytest.approx(wanted.score, rel=1e-5, abs=1e-5)


def test_grey_recipe_takes_grey_frames_only() -> None:
    grey = TorchCpuBackend(loaded(channels=1))
    grey.check(noise(1, 90, 90))
    assert len(grey.collect(grey.submit([noise(1, 90, 90)]))) == 1
    with pytest.raises(FormatError, match="wants grey"):
        grey.check(noise(1, 90, 90, 3))


def test_colour_recipe_says_what_it_wants(backend: TorchCpuBackend) -> None:
    with pytest.raises(FormatError, match="wants colour"):
        backend.check(noise(1, 90, 90))


def test_after_close_it_is_fatal() -> None:
    backend = TorchCpuBackend(loaded())
    backend.close()
    backend.close()
    with pytest.raises(FatalError, match="closed"):
        backend.collect(backend.submit([noise(1, 128, 128, 3)]))


def test_failures_of_the_engine_are_translated() -> None:
    backend = TorchCpuBackend(loaded())
    assert backend._net is not None
    backend._net.conv1.weight.data = torch.zeros(2, 5, 4, 4)
    with pytest.raises(FatalError, match=r"^torch_cpu: ") as caught:
        backend.collect(backend.submit([noise(1, 128, 128, 3)]))
    assert "\n" not in str(caught.value)


def test_scores_equal_on_real_parts(data_dir: Path, backend: TorchCpuBackend) -> None:
    """Real images in one batch and alone; the folder is sorted, so the choice is fixed."""
    from efficientad_stream.model.data import read_image

    paths = sorted((data_dir / "mtd" / "test" / "crack").iterdir())[:3]
    frames = [read_image(path, 3) for path in paths]
    together = backend.collect(backend.submit(frames))
    for frame, scores in zip(frames, together, strict=True):
        (alone,) = backend.collect(backend.submit([frame]))
        assert alone.score == pytest.approx(scores.score, rel=1e-5, abs=1e-5)
