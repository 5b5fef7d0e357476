"""Fit, region and mask: what of a frame reaches the networks."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficientad_stream.core.errors import ArtifactError, FormatError
from efficientad_stream.core.geometry import FITS, Geometry
from efficientad_stream.core.placement import Rect
from efficientad_stream.model.frames import BLANK, LEVEL, blank_of, inspected, prepare
from efficientad_stream.model.mask import make_geometry, mask_bytes, read_mask, with_mask


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def disc(height: int, width: int) -> np.ndarray:
    """True in an ellipse that touches the edges."""
    y, x = np.mgrid[:height, :width] + 0.5
    return np.asarray((2 * y / height - 1) ** 2 + (2 * x / width - 1) ** 2 < 1)


def test_letterbox_keeps_each_pixel_and_adds_bars() -> None:
    frame = noise(128, 96, 3)
    seen = prepare(frame, Geometry(128, 160, fit="letterbox", frame=(128, 96)))
    assert np.array_equal(seen[:, 32:128], frame[..., ::-1])
    assert (seen[:, :32] == BLANK).all()
    assert (seen[:, 128:] == BLANK).all()
    grey = prepare(frame[..., 0], Geometry(160, 96 + 32, 1, fit="letterbox", frame=(128, 96)))
    assert grey.shape == (160, 128, 3)
    assert (grey[:, :4] == BLANK).all(), "120 of 128 columns are taken"


def test_crop_takes_the_middle() -> None:
    frame = noise(150, 200, 3)
    seen = prepare(frame[:, 20:180], Geometry(128, 160, fit="crop"))
    assert np.array_equal(seen, prepare(frame[11:139, 20:180], Geometry(128, 160)))


def test_region_is_as_if_the_frame_were_no_larger() -> None:
    frame, region = noise(300, 400, 3), Rect(30, 40, 250, 170)
    for fit in FITS:
        part = Geometry(128, 160, 3, "level", fit, region, (300, 400))
        alone = replace(part, region=None, frame=(170, 250))
        cut = frame[40:210, 30:280]
        assert np.array_equal(prepare(frame, part), prepare(cut, alone))
        frame[:40] = 0
        frame[:, 280:] = 255
        assert np.array_equal(prepare(frame, part), prepare(cut, alone))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_written_into_out(fit: str, channels: int) -> None:
    shape = (140, 333, 3) if channels == 3 else (140, 333)
    plain = Geometry(128, 160, channels, "level", fit, Rect(5, 6, 300, 130), (140, 333))
    geometry = with_mask(plain, disc(140, 333))
    out = np.zeros((128, 160, 3), np.uint8)
    assert prepare(noise(*shape), geometry, out) is out
    assert np.array_equal(out, prepare(noise(*shape), geometry))
    blank = blank_of(geometry)
    assert blank is not None
    assert (out[blank.hidden > 0] == BLANK).all()


@given(
    st.sampled_from(FITS),
    st.tuples(st.integers(20, 400), st.integers(20, 400)),
    st.sampled_from(["as_is", "level"]),
    st.integers(0, 99),
)
def test_nothing_under_the_mask_reaches_the_networks(
    fit: str, size: tuple[int, int], exposure: str, seed: int
) -> None:
    mask = disc(*size)
    geometry = with_mask(Geometry(128, 160, 3, exposure, fit, None, size), mask)
    frame = noise(*size, 3, seed=seed)
    other = np.where(mask[..., None], frame, noise(*size, 3, seed=seed + 1))
    assert np.array_equal(prepare(frame, geometry), prepare(other, geometry))


def test_brightness_is_that_of_what_is_inspected() -> None:
    mask = np.zeros((128, 160), np.bool_)
    mask[:64] = True
    geometry = with_mask(Geometry(128, 160, 3, "level", "stretch", None, (128, 160)), mask)
    frame = np.full((128, 160, 3), 50, np.uint8)
    frame[64:] = 250
    seen = prepare(frame, geometry)
    assert (seen[:64] == LEVEL).all()
    assert (seen[64:] == BLANK).all()
    boxed = prepare(frame[:64], Geometry(128, 160, 3, "level", "letterbox", None, (64, 160)))
    assert (boxed[32:96] == LEVEL).all(), "bars are no part of the mean"


def test_a_position_counts_if_any_of_its_pixels_does() -> None:
    mask = np.zeros((128, 160), np.bool_)
    mask[40, 60] = True
    mask[47, 67] = True
    mask[0, 0] = True  # in the border that a map lacks
    geometry = with_mask(Geometry(128, 160, frame=(128, 160)), mask)
    counts = inspected(geometry)
    assert counts is not None
    assert counts.shape == geometry.map_size == (24, 32)
    assert np.argwhere(counts).tolist() == [[6, 11], [7, 12]]


def test_bars_do_not_count() -> None:
    counts = inspected(Geometry(128, 128, fit="letterbox", frame=(50, 100)))
    assert counts is not None
    assert counts.shape == (24, 24)
    assert np.flatnonzero(counts.any(1)).tolist() == list(range(4, 20))
    assert counts[4:20].all()


def test_without_bars_or_mask_everything_counts() -> None:
    assert inspected(Geometry(128, 128)) is None
    assert inspected(Geometry(128, 128, region=Rect(1, 1, 9, 9), frame=(50, 50))) is None
    assert inspected(Geometry(128, 128, fit="crop")) is None


def test_a_mask_that_leaves_nothing_is_refused() -> None:
    geometry = Geometry(128, 128, frame=(128, 128))
    with pytest.raises(ArtifactError, match="leaves nothing to inspect"):
        with_mask(geometry, np.zeros((128, 128), np.bool_))
    with pytest.raises(ValueError, match="was not read"):
        prepare(noise(128, 128, 3), replace(geometry, mask_sha256="0" * 64))


def test_another_size_than_the_recipe_is_for_is_said() -> None:
    geometry = Geometry(128, 128, region=Rect(0, 0, 50, 50), frame=(60, 70))
    with pytest.raises(FormatError) as error:
        prepare(noise(60, 60, 3), geometry)
    assert str(error.value) == "frame has 60 x 60 pixels, the recipe is for frames of 70 x 60"


def test_the_file_is_the_mask() -> None:
    mask = disc(97, 131)
    picture = cv2.imdecode(np.frombuffer(mask_bytes(mask), np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    assert np.array_equal(picture, np.where(mask, 255, 0))


def test_the_geometry_of_a_training(tmp_path: Path) -> None:
    plain = Geometry(128, 128)
    assert make_geometry(plain, tmp_path, None, fit="crop", region=None, mask=None) == replace(
        plain, fit="crop"
    ), "the images are not looked at"
    cv2.imwrite(str(tmp_path / "a.png"), noise(60, 70, 3))
    boxed = make_geometry(plain, tmp_path, None, fit="letterbox", region=None, mask=None)
    assert boxed.frame == (60, 70)
    path = tmp_path.parent / "mask.png"
    cv2.imwrite(str(path), np.where(disc(60, 70), 128, 127).astype(np.uint8))
    made = make_geometry(plain, tmp_path, None, fit="stretch", region=Rect(0, 0, 70, 50), mask=path)
    assert made.mask is not None
    assert np.array_equal(made.mask, disc(60, 70)), "from half of white on"
    assert made.mask_sha256 == hashlib.sha256(mask_bytes(made.mask)).hexdigest()
    assert not made.mask.flags.writeable


def test_what_is_light_in_any_colour_is_inspected(tmp_path: Path) -> None:
    picture = np.full((4, 5, 3), 127, np.uint8)  # as dark as black may be
    picture[1, 2] = (128, 0, 0)  # a blue whose grey value is darker than that
    wanted = picture[..., 0] > 127
    opaque = np.dstack([picture, np.full((4, 5), 255, np.uint8)])
    for one in (picture, opaque, picture.max(2)):
        cv2.imwrite(str(tmp_path / "mask.png"), one)
        assert np.array_equal(read_mask(tmp_path / "mask.png"), wanted)
