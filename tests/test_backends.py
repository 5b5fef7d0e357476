"""One contract over all processor backends: the scores and maps of the reference network."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import efficientad_stream
from efficientad_stream.backends.choose import make_backend
from efficientad_stream.backends.cpu import CpuBackend
from efficientad_stream.backends.native import library
from efficientad_stream.backends.native.library import NativeUnavailableError
from efficientad_stream.backends.processor import ProcessorBackend
from efficientad_stream.backends.torch_cpu import TorchCpuBackend
from efficientad_stream.core.errors import ConfigError, FatalError, FormatError
from efficientad_stream.core.recipe import Geometry, Quantiles, Recipe, ThresholdChoice
from efficientad_stream.core.types import PixelArray
from efficientad_stream.model.artifact import LoadedRecipe, load_recipe
from efficientad_stream.model.data import read_image
from efficientad_stream.model.frames import prepare
from efficientad_stream.model.networks import EfficientAD

Make = Callable[..., ProcessorBackend]
EXACT = 1e-4
"""Of scores, relative; of maps ten times that, of their maximum."""


def loaded(channels: int = 3, height: int = 128, width: int = 128, size: Any = "S") -> LoadedRecipe:
    """A real network with random weights, its map normalisation set to what it says of noise."""
    torch.manual_seed(3)
    net = EfficientAD(size).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.mul_(2.0)
    with torch.inference_mode():
        raw = net.raw_maps(torch.rand(1, 3, height, width))
    # from 0, since the maps of random weights are so flat that a quantile would cancel them
    st, ae = ((0.0, float(np.quantile(m.numpy(), 0.995))) for m in raw)
    recipe = Recipe(
        "noise", 1, size, Geometry(height, width, channels), Quantiles(st[0], st[1], ae[0], ae[1]),
        ThresholdChoice(1.0, "manual", "noise", 1), "0" * 64,
    )  # fmt: skip
    return LoadedRecipe(recipe, net)


@pytest.fixture(scope="module")
def recipe() -> LoadedRecipe:
    return loaded()


@pytest.fixture(scope="module", params=[TorchCpuBackend, CpuBackend], ids=lambda made: made.name)
def make(request: pytest.FixtureRequest) -> Make:
    if request.param is CpuBackend:
        try:
            library.load()
        except NativeUnavailableError as error:
            pytest.skip(str(error))
    made: Make = request.param
    return made


@pytest.fixture(scope="module")
def backend(make: Make, recipe: LoadedRecipe) -> Iterator[ProcessorBackend]:
    opened = make(recipe, threads=2, max_frames=2, maps=True)
    yield opened
    opened.close()


def noise(seed: int, *shape: int) -> PixelArray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def agrees(backend: ProcessorBackend, recipe: LoadedRecipe, frame: PixelArray) -> None:
    """Scores and map of the plain network, to ``EXACT``."""
    (scores,) = backend.collect(backend.submit([frame]))
    pixels = prepare(frame, recipe.recipe.geometry)
    rgb = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        combined, maps = recipe.net(rgb, recipe.recipe.quantiles)
    assert scores.score == pytest.approx(float(combined.max()), rel=EXACT)
    assert scores.local_score == pytest.approx(float(maps.local.max()), rel=EXACT)
    assert scores.global_score == pytest.approx(float(maps.globl.max()), rel=EXACT)
    assert scores.anomaly_map is not None
    assert scores.anomaly_map.dtype == np.float32
    assert scores.anomaly_map.shape == tuple(combined.shape[1:])
    bound = 10 * EXACT * float(combined.max())
    np.testing.assert_allclose(scores.anomaly_map, combined[0].numpy(), rtol=0, atol=bound)
    assert scores.score == scores.anomaly_map.max()


def test_agrees_with_the_plain_network(recipe: LoadedRecipe, backend: ProcessorBackend) -> None:
    agrees(backend, recipe, noise(1, 200, 300, 3))


@pytest.mark.parametrize(
    ("channels", "height", "width", "size"),
    [(1, 128, 160, "S"), (3, 256, 256, "S"), (3, 160, 288, "S"), (3, 352, 128, "S"),
     (3, 128, 192, "M")],
)  # fmt: skip
def test_agrees_at_other_sizes(
    make: Make, channels: int, height: int, width: int, size: str
) -> None:
    other = loaded(channels, height, width, size)
    frame = noise(5, 170, 310) if channels == 1 else noise(5, 170, 310, 3)
    backend = make(other, threads=2, maps=True)
    agrees(backend, other, frame)
    backend.close()


def test_agrees_on_real_parts_with_a_trained_recipe(make: Make, data_dir: Path) -> None:
    trained = load_recipe(Path(efficientad_stream.__file__).parent / "assets" / "demo_recipe")
    backend = make(trained, threads=2, maps=True)
    for path in sorted((data_dir / "mtd" / "test" / "crack").iterdir())[:5]:
        agrees(backend, trained, read_image(path, 3))
    backend.close()


def test_score_does_not_depend_on_the_batch(backend: ProcessorBackend) -> None:
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


def test_maps_are_the_callers_own(backend: ProcessorBackend) -> None:
    first = backend.collect(backend.submit([noise(1, 128, 150, 3)]))[0].anomaly_map
    assert first is not None
    kept = first.copy()
    backend.collect(backend.submit([noise(2, 128, 150, 3)]))
    np.testing.assert_array_equal(first, kept)


def test_maps_that_nobody_needs_are_not_kept(
    make: Make, recipe: LoadedRecipe, backend: ProcessorBackend
) -> None:
    bare = make(recipe, threads=2)
    frame = noise(1, 128, 150, 3)
    ((found,), (wanted,)) = (b.collect(b.submit([frame])) for b in (bare, backend))
    assert found.anomaly_map is None
    assert found.score == pytest.approx(wanted.score, rel=1e-5, abs=1e-5)


def test_grey_recipe_takes_grey_frames_only(make: Make) -> None:
    grey = make(loaded(channels=1))
    grey.check(noise(1, 90, 90))
    assert len(grey.collect(grey.submit([noise(1, 90, 90)]))) == 1
    with pytest.raises(FormatError, match="wants grey"):
        grey.check(noise(1, 90, 90, 3))


def test_colour_recipe_says_what_it_wants(backend: ProcessorBackend) -> None:
    with pytest.raises(FormatError, match="wants colour"):
        backend.check(noise(1, 90, 90))


def test_after_close_it_is_fatal(make: Make) -> None:
    backend = make(loaded())
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


def test_scores_equal_on_real_parts(data_dir: Path, backend: ProcessorBackend) -> None:
    """Real images in one batch and alone; the folder is sorted, so the choice is fixed."""
    paths = sorted((data_dir / "mtd" / "test" / "crack").iterdir())[:3]
    frames = [read_image(path, 3) for path in paths]
    together = backend.collect(backend.submit(frames))
    for frame, scores in zip(frames, together, strict=True):
        (alone,) = backend.collect(backend.submit([frame]))
        assert alone.score == pytest.approx(scores.score, rel=1e-5, abs=1e-5)


def test_native_scores_are_the_same_bits_for_any_batch_and_threads(recipe: LoadedRecipe) -> None:
    try:
        library.load()
    except NativeUnavailableError as error:
        pytest.skip(str(error))
    frames = [noise(n, 130 + n, 170, 3) for n in range(5)]
    results = []
    for threads, most, together in ((1, 1, 1), (2, 4, 5), (3, 2, 2)):
        backend = CpuBackend(recipe, threads, most)
        batches = [frames[i : i + together] for i in range(0, 5, together)]
        results.append(
            [s.score for batch in batches for s in backend.collect(backend.submit(batch))]
        )
        backend.close()
    assert results[0] == results[1] == results[2]


def test_without_kernels_torch_scores_and_the_log_says_so(
    recipe: LoadedRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a machine without a compiler: the extension is not found."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    library.load.cache_clear()
    assert isinstance(make_backend(recipe), TorchCpuBackend)
    assert "about four times slower" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"^backend.kind: cpu: .*not built.*torch_cpu works"):
        make_backend(recipe, "cpu")
    library.load.cache_clear()
