"""Drawn images in the place of photographs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from efficientad_stream.core.recipe import Geometry
from efficientad_stream.model.frames import LEVEL
from efficientad_stream.model.naturals import NaturalImages, Naturals
from efficientad_stream.model.procedural import patterns, scenes
from efficientad_stream.model.procedural.images import POOL, POOL_BYTES, ProceduralImages
from efficientad_stream.model.procedural.palette import palette, ramp

GEOMETRY = Geometry(128, 160)


def images(geometry: Geometry = GEOMETRY) -> Naturals:
    return ProceduralImages(geometry)


def draw(count: int, source: Naturals, seed: int = 0) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return [source.draw(rng) for _ in range(count)]


def is_grey(image: NDArray[np.uint8]) -> bool:
    return bool((image == image[..., :1]).all())


def slope(image: NDArray[np.uint8]) -> float:
    """Of the power spectrum: log power against log frequency, from 0.02 to 0.35 cycles a pixel."""
    grey = image.mean(axis=2)
    window = np.outer(np.hanning(grey.shape[0]), np.hanning(grey.shape[1]))
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    there = np.hypot(np.fft.fftfreq(grey.shape[0])[:, None], np.fft.fftfreq(grey.shape[1])[None])
    edges = np.geomspace(0.02, 0.35, 10)
    rings = [(there >= low) & (there < high) for low, high in pairwise(edges)]
    middles = np.log(np.sqrt(edges[1:] * edges[:-1]))
    levels = np.log([power[ring].mean() + 1e-3 for ring in rings])
    return float(np.polyfit(middles, levels, 1)[0])


def test_the_same_generator_draws_the_same_images_whatever_was_drawn_before() -> None:
    warm = images()
    draw(10, warm, seed=1)
    for fresh, used in zip(draw(10, images()), draw(10, warm), strict=True):
        assert np.array_equal(fresh, used)
    assert not all(map(np.array_equal, draw(10, warm), draw(10, warm, seed=2)))


@settings(max_examples=20, deadline=None)
@given(st.integers(32, 80), st.integers(32, 80), st.integers(0, 2**32))
def test_any_shape_and_every_kind_of_scene(height: int, width: int, seed: int) -> None:
    for kind in scenes.SCENES:
        image = kind(height, width, np.random.default_rng(seed))
        assert image.shape == (height, width, 3)
        assert image.dtype == np.float32
        assert np.isfinite(image).all()
        taken = scenes.photograph(image, np.random.default_rng(seed))
        assert taken.shape == image.shape
        assert taken.dtype == np.uint8


@settings(max_examples=20, deadline=None)
@given(st.integers(16, 80), st.integers(16, 80), st.integers(0, 2**32))
def test_every_pattern_has_mean_0_and_deviation_1(height: int, width: int, seed: int) -> None:
    for kind in patterns.PATTERNS:
        field = kind(height, width, np.random.default_rng(seed))
        assert field.shape == (height, width)
        assert field.dtype == np.float32
        assert abs(float(field.mean())) < 1e-3
        assert float(field.std()) == pytest.approx(1, abs=1e-2)


def test_what_is_drawn_can_be_written_to() -> None:
    source = images()
    for index, image in enumerate(draw(30, source)):
        assert image.shape == (128, 160, 3)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        image[:] = 0  # the pool must not notice
        assert index < 30
    for fresh, used in zip(draw(30, images()), draw(30, source), strict=True):
        assert np.array_equal(fresh, used)


def test_three_in_ten_are_grey_and_all_of_a_grey_recipe() -> None:
    shown = [is_grey(image) for image in draw(300, images())]
    assert abs(np.mean(shown) - NaturalImages.GREY_PROBABILITY) < 0.1
    assert all(map(is_grey, draw(30, images(Geometry(128, 128, 1)))))


def test_levelled_images_are_equally_bright() -> None:
    levelled = [image.mean() for image in draw(40, images(Geometry(128, 128, 3, "level")))]
    as_they_are = [image.mean() for image in draw(40, images(Geometry(128, 128, 3, "as_is")))]
    assert np.std(levelled) < np.std(as_they_are) / 3
    assert np.median(levelled) == pytest.approx(LEVEL, abs=4)


def test_no_two_scenes_are_alike() -> None:
    rng = np.random.default_rng
    drawn = [scenes.scene(64, 64, rng(seed)).astype(float).ravel() for seed in range(60)]
    for index, one in enumerate(drawn):
        for other in drawn[:index]:
            together = np.corrcoef(one, other)[0, 1]
            assert np.abs(one - other).mean() > 8
            assert together < 0.9


def test_power_falls_with_frequency_as_in_photographs() -> None:
    slopes = [slope(scenes.scene(128, 128, np.random.default_rng(seed))) for seed in range(80)]
    assert -3.6 < np.mean(slopes) < -2.2  # of photographs: -3.2, with a deviation of 0.6
    assert np.std(slopes) > 0.3


def test_noise_falls_as_it_is_told() -> None:
    def of(fall: float) -> float:
        field = patterns.noise(256, 256, np.random.default_rng(0), fall)
        return slope(np.clip(128 + 30 * field, 0, 255).astype(np.uint8)[..., None])

    assert of(0.8) < of(0.0) - 0.8 < of(-0.5) - 1.3


def test_a_palette_is_mostly_dull_and_a_ramp_goes_through_its_colours() -> None:
    colours = np.concatenate([palette(6, np.random.default_rng(seed)) for seed in range(200)])
    assert np.median(colours.max(axis=1) - colours.min(axis=1)) < 0.3
    three = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]], np.float32)
    shown = ramp(np.array([[-9, 0, 9]], np.float32), three)
    assert shown[0] == pytest.approx(three, abs=0.01)


def test_the_pool_is_bounded_and_named() -> None:
    assert len(images()) == POOL
    large = images(Geometry(1024, 1024))
    assert len(large) == POOL_BYTES // (3 << 20) == 85
    assert images().digest == images().digest != large.digest
    assert not images().unreadable
