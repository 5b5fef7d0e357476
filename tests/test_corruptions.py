"""Corruptions change what they say, by as much as they say, and always the same way."""

from __future__ import annotations

import numpy as np
import pytest

from efficientad_stream.core.geometry import Geometry
from efficientad_stream.core.placement import Rect
from efficientad_stream.core.types import PixelArray
from efficientad_stream.model.corruptions import CORRUPTIONS, NOISE

GEOMETRY = Geometry(128, 128)
BY_NAME = {corruption.name: corruption for corruption in CORRUPTIONS}


def frame(*shape: int) -> PixelArray:
    return np.random.default_rng(1).integers(30, 200, shape, dtype=np.uint8)


def changed(name: str, before: PixelArray, image: str = "good/0.png") -> PixelArray:
    return BY_NAME[name](before, GEOMETRY, image)


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 3), (1, 1), (300, 256, 3)])
def test_a_frame_stays_a_frame(name: str, shape: tuple[int, ...]) -> None:
    before = frame(*shape)
    kept = before.copy()
    after = changed(name, before)
    assert after.shape == before.shape
    assert after.dtype == np.uint8
    assert np.array_equal(before, kept), "the frame itself is left alone"
    assert np.array_equal(after, changed(name, before)), "the same each time"
    if shape != (1, 1):
        assert not np.array_equal(after, before)


@pytest.mark.parametrize("percent", [10, -10, 20, -20])
def test_gain(percent: int) -> None:
    before = frame(20, 20, 3)
    after = changed(f"gain {percent:+} %", before)
    assert np.abs(after - np.minimum(before * (1 + percent / 100), 255)).max() <= 0.5 + 1e-9


def test_noise_is_as_strong_as_it_says_and_another_for_each_image() -> None:
    before = np.full((200, 200), 128, np.uint8)
    after = changed("noise", before)
    assert (after.astype(float) - 128).std() == pytest.approx(NOISE, rel=0.05)
    assert not np.array_equal(after, changed("noise", before, "good/1.png"))


def test_a_shift_is_in_pixels_of_the_input() -> None:
    before = frame(256, 384)
    after = changed("shift 5 px", before)  # twice as high and three times as wide as the input
    assert np.array_equal(after[10:, 15:], before[:-10, :-15])
    assert (after[:10, 15:] == before[0, :-15]).all(), "the edge is repeated"


@pytest.mark.parametrize("across", [True, False])
def test_a_blur_is_in_pixels_of_the_input(across: bool) -> None:
    before = np.zeros((256, 384), np.uint8)  # twice as high and three times as wide as the input
    if across:
        before[:, 192:] = 200
    else:
        before[128:] = 200
    after = changed("blur 1 px", before).astype(float)
    slope = np.diff(after[128] if across else after[:, 192])
    at = np.arange(slope.size)
    middle = np.average(at, weights=slope)
    deviation = np.sqrt(np.average((at - middle) ** 2, weights=slope))
    assert deviation == pytest.approx(3.0 if across else 2.0, rel=0.05)


@pytest.mark.parametrize(
    ("geometry", "down", "right"),
    [
        (Geometry(128, 128, region=Rect(10, 20, 128, 128), frame=(256, 512)), 5, 5),
        (Geometry(128, 128, fit="letterbox", frame=(256, 512)), 20, 20),
        (Geometry(128, 128, fit="crop"), 10, 10),
    ],
)
def test_pixels_of_the_input_are_those_that_the_recipe_sees(
    geometry: Geometry, down: int, right: int
) -> None:
    before = frame(256, 512)
    after = BY_NAME["shift 5 px"](before, geometry, "good/0.png")
    assert np.array_equal(after[down:, right:], before[:-down, :-right])
