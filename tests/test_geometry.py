"""Where the networks' input lies in a frame, and where a map lies on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.geometry import FITS, Geometry, inscribed
from efficientad_stream.core.placement import Placement, Rect, over_frame, whole

sides = st.integers(1, 3000)
inputs = st.integers(4, 32).map(lambda n: 32 * n)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Any fit, with or without a region, for a frame of any size."""
    height, width = draw(sides), draw(sides)
    region = None
    if draw(st.booleans()):
        x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        region = Rect(x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y)))
    fit = draw(st.sampled_from(FITS))
    return Geometry(
        draw(inputs), draw(inputs), fit=fit, region=region, frame=(height, width)
    )  # fmt: skip


def placed(geometry: Geometry) -> Placement:
    assert geometry.frame is not None
    return geometry.place(*geometry.frame)


def inside(inner: Rect, outer: Rect) -> bool:
    return (
        outer.x <= inner.x
        and outer.y <= inner.y
        and inner.x + inner.width <= outer.x + outer.width
        and inner.y + inner.height <= outer.y + outer.height
    )


@given(geometries())
def test_source_and_target_are_pixels_of_frame_and_input(geometry: Geometry) -> None:
    place = placed(geometry)
    height, width = place.frame
    looked_at = geometry.region or Rect(0, 0, width, height)
    everything = Rect(0, 0, geometry.width, geometry.height)
    assert inside(place.source, looked_at)
    assert inside(place.target, everything)
    assert min(*place.source[2:], *place.target[2:]) >= 1
    assert place.source == looked_at or geometry.fit == "crop"
    assert place.target == everything or geometry.fit == "letterbox"


@given(geometries(), st.floats(0, 1), st.floats(0, 1))
def test_there_and_back_again(geometry: Geometry, right: float, down: float) -> None:
    place = placed(geometry)
    source, target = place.source, place.target
    x, y = source.x + right * source.width, source.y + down * source.height
    assert place.to_frame(*place.to_input(x, y)) == pytest.approx((x, y), abs=1e-8)
    x, y = target.x + right * target.width, target.y + down * target.height
    assert place.to_input(*place.to_frame(x, y)) == pytest.approx((x, y), abs=1e-8)


@given(geometries())
def test_corners_meet_corners_exactly(geometry: Geometry) -> None:
    place = placed(geometry)
    (left, top, wide, high), (x, y, width, height) = place.source, place.target
    for right in (0, 1):
        for down in (0, 1):
            there: tuple[float, float] = (x + right * width, y + down * height)
            here: tuple[float, float] = (left + right * wide, top + down * high)
            assert place.to_input(*here) == there
            assert place.to_frame(*there) == here


@given(geometries())
def test_proportions_are_kept_to_a_pixel(geometry: Geometry) -> None:
    assume(geometry.fit != "stretch")
    place = placed(geometry)
    rounded = place.source if geometry.fit == "crop" else place.target
    exact = place.target if geometry.fit == "crop" else place.source
    wide = rounded.height * exact.width / exact.height
    high = rounded.width * exact.height / exact.width
    assert (
        abs(wide - rounded.width) <= 0.5
        or abs(high - rounded.height) <= 0.5
        or min(rounded.width, rounded.height) == 1
    )


@given(geometries())
def test_it_lies_in_the_middle(geometry: Geometry) -> None:
    place = placed(geometry)
    outer = geometry.region or Rect(0, 0, place.frame[1], place.frame[0])
    inner = place.source
    if geometry.fit == "letterbox":
        outer, inner = Rect(0, 0, geometry.width, geometry.height), place.target
    for start, length, first, whole_length in (
        (inner.x, inner.width, outer.x, outer.width),
        (inner.y, inner.height, outer.y, outer.height),
    ):
        assert 0 <= (whole_length - length) - 2 * (start - first) <= 1


def test_by_hand() -> None:
    box = Geometry(128, 256, fit="letterbox", frame=(100, 100))
    assert placed(box) == Placement((100, 100), Rect(0, 0, 100, 100), Rect(64, 0, 128, 128))
    assert placed(box).to_input(50, 50) == (128, 64)
    crop = Geometry(128, 256, fit="crop", region=Rect(10, 20, 60, 60), frame=(100, 100))
    assert placed(crop) == Placement((100, 100), Rect(10, 35, 60, 30), Rect(0, 0, 256, 128))
    assert placed(crop).to_frame(128, 64) == (40, 50)
    assert Geometry(128, 128, fit="crop").place(90, 200).source == Rect(55, 0, 90, 90)
    assert inscribed(Rect(0, 0, 10, 1000), 1000, 1) == Rect(0, 499, 10, 1)


def test_it_is_immutable_and_hashable() -> None:
    mask = np.ones((90, 90), np.bool_)
    one = Geometry(128, 128, frame=(90, 90), mask_sha256="0" * 64, mask=mask)
    assert hash(one) == hash(replace(one, mask=None))
    assert one == replace(one, mask=None), "it is known by its hash"
    assert one != replace(one, mask_sha256="1" * 64)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"fit": "squeeze"}, "input.fit: 'squeeze' is none of stretch, letterbox, crop"),
        ({"fit": "letterbox"}, "input.frame: missing"),
        ({"region": Rect(0, 0, 5, 5)}, "input.frame: missing"),
        ({"mask_sha256": "0" * 64}, "input.frame: missing"),
        ({"mask_sha256": "0" * 63}, "input.mask_sha256: not 64"),
        ({"frame": (0, 5)}, "input.frame: 5 x 0 pixels"),
        ({"frame": (5, 70_000)}, "input.frame: 70000 x 5 pixels"),
        ({"frame": (9, 9), "region": Rect(1, 0, 9, 9)}, "input.region: 9 x 9 pixels from (1, 0)"),
        ({"frame": (9, 9), "region": Rect(0, 1, 9, 9)}, "input.region: 9 x 9 pixels from (0, 1)"),
        ({"frame": (9, 9), "region": Rect(-1, 0, 9, 9)}, "input.region: "),
        ({"frame": (9, 9), "region": Rect(0, 0, 0, 9)}, "input.region: "),
        (
            {"frame": (9, 9), "mask_sha256": "0" * 64, "mask": np.ones((9, 8), np.bool_)},
            "input.mask_sha256: the mask has 8 x 9 pixels, the frame 9 x 9",
        ),
    ],
)
def test_what_does_not_go_together(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ArtifactError) as error:
        Geometry(128, 128, **values)
    assert str(error.value).startswith(complaint)
    assert "\n" not in str(error.value)


@given(st.tuples(sides, sides), st.tuples(st.integers(1, 90), st.integers(1, 90)))
def test_all_of_a_frame_is_interpolated_as_pytorch_does(
    frame: tuple[int, int], size: tuple[int, int]
) -> None:
    values = np.random.default_rng(0).random((32, 40), np.float32)
    found = over_frame(values, whole(frame, (128, 160)), size)
    tensor = torch.from_numpy(values)[None, None]
    wanted = F.interpolate(tensor, size, mode="bilinear", align_corners=False)[0, 0].numpy()
    np.testing.assert_allclose(found, wanted, atol=2e-5)


@given(geometries(), st.data())
def test_a_position_of_the_map_lands_where_its_pixels_came_from(
    geometry: Geometry, data: st.DataObject
) -> None:
    """The hottest pixel of the picture is one whose middle is nearest to that position's."""
    place = placed(geometry)
    x, y, wide, high = place.target
    assume(wide >= 12 and high >= 12)
    column = data.draw(st.integers(-(-x // 4) + 1, (x + wide) // 4 - 2))
    row = data.draw(st.integers(-(-y // 4) + 1, (y + high) // 4 - 2))
    values = np.zeros((geometry.height // 4, geometry.width // 4), np.float32)
    values[row, column] = 1.0
    size = (min(place.frame[0], 700), min(place.frame[1], 700))
    found = over_frame(values, place, size, outside=-1.0)
    assert found.shape == size
    right, down = place.to_frame(4 * column + 2, 4 * row + 2)
    middle = (down * size[0] / place.frame[0], right * size[1] / place.frame[1])
    assume(found.max() > 0)  # else a pixel of the picture is larger than what the position covers
    hottest = np.argwhere(found == found.max()) + 0.5
    step = np.array(size) / place.frame * (place.source.height / high, place.source.width / wide)
    assert (np.abs(hottest - middle).min(0) <= np.maximum(0.5, 2 * step) + 1e-6).all()


@given(geometries())
def test_outside_of_what_is_seen_there_is_nothing(geometry: Geometry) -> None:
    place = placed(geometry)
    assume(place.frame[0] * place.frame[1] < 500_000)
    values = np.ones((geometry.height // 4, geometry.width // 4), np.float32)
    found = over_frame(values, place, place.frame, outside=-7.0)
    wanted = np.full(place.frame, -7.0, np.float32)
    wanted[place.source.slices] = 1.0
    np.testing.assert_allclose(found, wanted, atol=1e-5)
