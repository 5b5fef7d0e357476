"""Augmentations: what each does to a frame, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from efficientad_stream.core.errors import ConfigError
from efficientad_stream.model import augment as module
from efficientad_stream.model.augment import KINDS, augment, parse_kinds

RNG = np.random.default_rng(0)
GREY = np.repeat(RNG.integers(60, 160, (64, 80, 1), np.uint8), 3, axis=2)
COLOUR = RNG.integers(60, 160, (64, 80, 3), np.uint8)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("image", [GREY, COLOUR], ids=["grey", "colour"])
def test_each_is_bytes_of_the_same_shape_seeded_and_harmless(kind: str, image: np.ndarray) -> None:
    before = image.copy()
    results = [augment(image, (kind,), rng(seed)) for seed in range(12)]
    for seed, result in enumerate(results):
        assert result.dtype == np.uint8
        assert result.shape == image.shape
        assert result.flags.c_contiguous
        assert np.array_equal(result, augment(image, (kind,), rng(seed)))
    assert len({result.tobytes() for result in results}) > 2
    assert np.array_equal(image, before)
    if image is GREY:
        assert all(
            (r[..., 0] == r[..., 1]).all() and (r[..., 1] == r[..., 2]).all() for r in results
        )


def test_nothing_asked_for_is_nothing_done() -> None:
    assert np.array_equal(augment(COLOUR, (), rng(0)), COLOUR)


def test_strengths_stay_within_what_is_said() -> None:
    factors = [augment(GREY, ("gain",), rng(s)).mean() / GREY.mean() for s in range(200)]
    assert 1 / module.GAIN - 0.02 < min(factors) < 0.85
    assert 1.15 < max(factors) < module.GAIN + 0.02
    ends = np.array([[[0] * 3, [255] * 3]], np.uint8)
    assert np.array_equal(augment(ends, ("gamma",), rng(1)), ends)
    noises = [(augment(GREY, ("noise",), rng(s)).astype(int) - GREY).std() for s in range(50)]
    assert max(noises) < module.NOISE_SIGMA + 0.3


def test_a_shift_moves_by_whole_pixels_and_repeats_the_edge() -> None:
    b, seen = module.SHIFT_PX, set()
    for seed in range(60):
        shifted = augment(GREY, ("shift",), rng(seed))[b:-b, b:-b]
        (found,) = [
            (down, right)
            for down in range(-b, b + 1)
            for right in range(-b, b + 1)
            if np.array_equal(shifted, GREY[b - down : 64 - b - down, b - right : 80 - b - right])
        ]
        seen.add(found)
    assert {down for down, _ in seen} == set(range(-b, b + 1))
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[:, None, None], 3, 2).repeat(80, 1)
    assert (augment(ramp, ("shift",), rng(0)) <= 63).all()


def test_kinds_are_parsed_in_the_order_of_the_light() -> None:
    assert parse_kinds("none") == ()
    assert parse_kinds("all") == tuple(KINDS)
    assert parse_kinds("noise, gain") == ("gain", "noise")
    for wrong in ("", "gian", "gain,,noise", "all,gain"):
        with pytest.raises(ConfigError, match="--augment"):
            parse_kinds(wrong)
