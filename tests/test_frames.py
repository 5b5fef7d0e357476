from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficientad_stream.core.errors import FormatError
from efficientad_stream.core.recipe import Geometry
from efficientad_stream.model.frames import check_format, prepare, resize

COLOUR = Geometry(128, 160, 3)
GREY = Geometry(128, 160, 1)
sides = st.integers(1, 700)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@given(sides, sides)
def test_any_size_becomes_the_input_size(height: int, width: int) -> None:
    assert prepare(np.full((height, width, 3), 7, np.uint8), COLOUR).shape == (128, 160, 3)
    grey = prepare(np.full((height, width), 9, np.uint8), GREY)
    assert (grey == 9).all(), "a uniform frame stays uniform"
    assert grey.shape == (128, 160, 3)


def test_red_comes_first() -> None:
    frame = np.zeros((200, 200, 3), np.uint8)
    frame[..., 2] = 250  # red in OpenCV's order
    frame[..., 0] = 10
    assert prepare(frame, COLOUR)[5, 5].tolist() == [250, 0, 10]


def test_a_frame_of_the_right_size_is_not_resampled() -> None:
    frame = noise(128, 160, 3)
    assert np.array_equal(prepare(frame, COLOUR), frame[..., ::-1])


def test_grey_is_repeated() -> None:
    frame = noise(128, 160)
    assert np.array_equal(prepare(frame, GREY), np.stack([frame] * 3, axis=2))


def test_shrinking_averages_over_areas() -> None:
    frame = noise(512, 640)
    mean = frame.reshape(128, 4, 160, 4).mean((1, 3))
    assert np.abs(resize(frame, 128, 160) - mean).max() <= 0.5


def test_one_axis_may_shrink_while_the_other_grows() -> None:
    frame = noise(512, 80)
    thin = frame.reshape(128, 4, 80).mean(1)
    wanted = cv2.resize(thin.astype(np.float32), (160, 128), interpolation=cv2.INTER_LINEAR)
    assert np.abs(resize(frame, 128, 160) - wanted).max() <= 1.5


def test_a_grey_picture_in_colour_is_judged_as_the_grey_one() -> None:
    grey = noise(300, 217)
    colour = np.stack([grey] * 3, axis=2)
    assert np.array_equal(prepare(grey, GREY), prepare(colour, COLOUR))


def test_the_result_is_written_where_it_is_wanted() -> None:
    out = np.zeros((128, 160, 3), np.uint8)
    for frame, geometry in ((noise(240, 320, 3), COLOUR), (noise(90, 70), GREY)):
        assert prepare(frame, geometry, out) is out
        assert np.array_equal(out, prepare(frame, geometry))


def test_a_row_padded_view_is_a_frame() -> None:
    wide = noise(200, 400, 3)
    assert np.array_equal(prepare(wide[:, 50:350], COLOUR), prepare(wide[:, 50:350].copy(), COLOUR))


@pytest.mark.parametrize(
    ("shape", "dtype", "order"),
    [((128, 160), np.uint8, "C"), ((128, 160, 3), np.float32, "C"), ((128, 160, 3), np.uint8, "F")],
)
def test_an_out_that_cannot_take_the_result(
    shape: tuple[int, ...], dtype: type, order: str
) -> None:
    out = np.zeros(shape, dtype, order=order)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="cannot take the result"):
        prepare(noise(128, 160, 3), COLOUR, out)


@pytest.mark.parametrize(
    ("frame", "geometry", "complaint"),
    [
        (noise(9, 9), COLOUR, "frame is grey (H x W), the recipe wants colour (H x W x 3)"),
        (noise(9, 9, 3), GREY, "frame is colour (H x W x 3), the recipe wants grey (H x W)"),
        (noise(9, 9, 4), COLOUR, "frame is 9 x 9 x 4, the recipe wants colour (H x W x 3)"),
        (noise(9, 9, 1), GREY, "frame is 9 x 9 x 1, the recipe wants grey (H x W)"),
        (noise(9), GREY, "frame is 9, the recipe wants grey (H x W)"),
        (noise(9, 9).astype(np.uint16), GREY, "frame is uint16, the recipe wants uint8 grey"),
        (noise(0, 9), GREY, "frame has no pixels"),
    ],
)
def test_a_frame_that_cannot_be_scored_is_named(
    frame: np.ndarray, geometry: Geometry, complaint: str
) -> None:
    for check in (check_format, prepare):
        with pytest.raises(FormatError) as error:
            check(frame, geometry)
        assert str(error.value).startswith(complaint)
