"""The rendered line: same index, same picture; and a truth that cannot disagree with the frame."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientad_stream.config import SimulatedSource
from efficientad_stream.core.types import GOOD
from efficientad_stream.sources.rendering.defects import DEFECTS, LOGICAL, STRUCTURAL
from efficientad_stream.sources.rendering.line import Line

SMALL = SimulatedSource(width=320, height=240, seed=7, defect_rate=0.5)


@pytest.fixture(scope="module")
def line() -> Line:
    return Line(SMALL)


def test_a_part_is_the_same_whoever_renders_it_and_in_whatever_order(line: Line) -> None:
    other = Line(SMALL)
    backwards = {k: other.render(k) for k in reversed(range(6))}
    for index in range(6):
        here = line.render(index)
        assert here.truth == backwards[index].truth == line.truth(index)
        assert np.array_equal(here.frame, backwards[index].frame)
        assert np.array_equal(here.mask, backwards[index].mask)


def test_render_into_writes_what_render_returns(line: Line) -> None:
    out = np.full((240, 320, 3), 255, np.uint8)
    for index in range(4):
        assert line.render_into(index, out) == line.truth(index)
        assert np.array_equal(out, line.render(index).frame)


def test_another_seed_and_another_part_look_different(line: Line) -> None:
    reseeded = Line(SimulatedSource(width=320, height=240, seed=8))
    first = line.render(0, GOOD).frame
    assert not np.array_equal(first, line.render(1, GOOD).frame)
    assert not np.array_equal(first, reseeded.render(0, GOOD).frame)


@given(index=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_a_good_part_has_an_empty_mask(line: Line, index: int) -> None:
    part = line.render(index, GOOD)
    assert part.truth == GOOD
    assert not part.mask.any()


@given(index=st.integers(0, 10**6), defect=st.sampled_from(DEFECTS))
@settings(max_examples=60, deadline=None)
def test_a_defect_changes_the_frame_inside_its_mask_and_nowhere_else(
    line: Line, index: int, defect: str
) -> None:
    good, bad = line.render(index, GOOD), line.render(index, defect)
    change = cv2.absdiff(good.frame, bad.frame).max(2)
    inside = bad.mask > 0
    assert bad.truth == defect
    assert set(np.unique(bad.mask)) == {0, 255}
    assert 4 <= inside.sum() < 0.25 * inside.size
    assert change[inside].max() >= 20
    near = cv2.dilate(bad.mask, np.ones((5, 5), np.uint8)) > 0
    assert change[~near].max() <= 8


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_varies_from_part_to_part(line: Line, defect: str) -> None:
    sizes = {int((line.render(index, defect).mask > 0).sum()) for index in range(12)}
    assert len(sizes) >= 4


def test_truths_follow_the_defect_rate() -> None:
    half = Line(SMALL)
    truths = [half.truth(index) for index in range(400)]
    assert 150 < sum(truth != GOOD for truth in truths) < 250
    assert set(truths) == {GOOD, *STRUCTURAL, *LOGICAL}
    none = Line(SimulatedSource(width=64, height=64, defect_rate=0.0))
    assert {none.truth(index) for index in range(200)} == {GOOD}
    always = Line(SimulatedSource(width=64, height=64, defect_rate=1.0))
    assert GOOD not in {always.truth(index) for index in range(200)}


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (100, 300), (401, 200), (512, 640)])
def test_every_size_renders_with_the_part_in_the_middle(size: tuple[int, int]) -> None:
    height, width = size
    odd = Line(SimulatedSource(width=width, height=height))
    for defect in DEFECTS:
        assert odd.render(3, defect).mask.any(), defect
    frame = odd.render(0, GOOD).frame
    assert frame.shape == (height, width, 3)
    assert frame.reshape(-1, 3).std() > 20


def test_grey_is_the_colour_frame_without_its_colour(line: Line) -> None:
    grey = Line(SimulatedSource(width=320, height=240, seed=7, grey=True)).render(5, GOOD).frame
    assert grey.shape == (240, 320)
    assert np.array_equal(grey, cv2.cvtColor(line.render(5, GOOD).frame, cv2.COLOR_BGR2GRAY))


def test_a_part_lies_within_its_tolerance() -> None:
    line = Line(SimulatedSource(width=640, height=480))
    centres, gains = [], []
    for index in range(12):
        frame = line.render(index, GOOD).frame
        seal = (frame[..., 2].astype(int) - frame[..., 0] > 60).astype(np.uint8)
        ys, xs = np.nonzero(seal)
        centres.append((ys.mean(), xs.mean()))
        gains.append(frame.mean())
    spread = np.ptp(np.array(centres), axis=0)
    assert (spread > 2).all()
    assert (spread <= 9).all()
    assert 0.01 < np.ptp(gains) / np.mean(gains) <= 0.09
