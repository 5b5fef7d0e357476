"""Areas against their definitions: pairs counted one by one, thresholds swept one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from efficientad_stream.core.evaluation import PixelCurves, auroc, best_f1, outcome

few_values = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40)
"""Small integers, so that ties are the rule."""


def pairs(scores: np.ndarray, defective: np.ndarray) -> float:
    """Definition of the AU-ROC: how often a defect scores above a good part; a tie is half."""
    wins = 0.0
    for bad in scores[defective]:
        for good in scores[~defective]:
            wins += 1.0 if bad > good else 0.5 if bad == good else 0.0
    return float(wins / (defective.sum() * (~defective).sum()))


@given(few_values)
def test_auroc_is_the_share_of_pairs_in_order(data: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in data], np.float64)
    defective = np.array([bad for _, bad in data])
    assume(0 < defective.sum() < len(data))
    assert auroc(scores, defective) == pytest.approx(pairs(scores, defective))


def test_auroc_at_its_ends() -> None:
    assert auroc([0.1, 0.2, 0.8, 0.9], [False, False, True, True]) == 1.0
    assert auroc([0.8, 0.9, 0.1, 0.2], [False, False, True, True]) == 0.0
    assert auroc([0.5, 0.5, 0.5], [False, True, True]) == 0.5


@pytest.mark.parametrize(
    ("scores", "defective", "problem"),
    [
        ([0.1, 0.2], [True, True], "good and defective"),
        ([0.1, 0.2], [False, False], "good and defective"),
        ([0.1, math.nan], [True, False], "not finite"),
        ([0.1, 0.2, 0.3], [True, False], "labels"),
    ],
)
def test_no_area_without_two_kinds_of_finite_scores(
    scores: list[float], defective: list[bool], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        auroc(scores, defective)


def swept_pro(maps: list[np.ndarray], labels: list[np.ndarray], limit: float) -> float:
    """Definition of the AU-PRO: every threshold in turn, trapezoids up to the limit."""
    good = np.concatenate([m[mark == 0] for m, mark in zip(maps, labels, strict=True)])
    rates, overlaps = [0.0], [0.0]
    for threshold in sorted({float(v) for m in maps for v in m.ravel()}, reverse=True):
        shares = [
            (m[mark == index] >= threshold).mean()
            for m, mark in zip(maps, labels, strict=True)
            for index in range(1, int(mark.max()) + 1)
        ]
        rates.append(float((good >= threshold).mean()))
        overlaps.append(float(np.mean(shares)))
    area = 0.0
    for i in range(1, len(rates)):
        x0, x1, y0, y1 = rates[i - 1], rates[i], overlaps[i - 1], overlaps[i]
        if x0 >= limit or x1 == x0:
            continue
        if x1 > limit:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.3, 1.0]), st.booleans())
def test_au_pro_is_the_swept_one(seed: int, limit: float, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = []
    for _ in range(3):
        mark = np.zeros((6, 7), np.int32)
        mark[1:3, 1:4] = rng.integers(0, 2)
        mark[4, 5:] = mark.max() + 1
        labels.append(mark)
    maps = [(rng.normal(size=(6, 7)) + (mark > 0)).astype(np.float32) for mark in labels]
    if ties:
        maps = [np.round(m) for m in maps]
    curves = PixelCurves()
    for one, mark in zip(maps, labels, strict=True):
        curves.add(one, mark)
    areas = curves.areas(limit)
    assert areas is not None
    flat = np.concatenate([m.ravel() for m in maps])
    inside = np.concatenate([mark.ravel() > 0 for mark in labels])
    assert areas[0] == pytest.approx(pairs(flat, inside))
    assert areas[1] == pytest.approx(swept_pro(maps, labels, limit))
    assert curves.components == sum(int(mark.max()) for mark in labels)


def test_a_small_defect_counts_as_much_as_a_large_one() -> None:
    labels = np.zeros((20, 20), np.int32)
    labels[:10] = 1
    labels[15, 15] = 2
    found_large = (labels == 1).astype(np.float32)
    curves = PixelCurves()
    curves.add(found_large, labels)
    areas = curves.areas(0.3)
    assert areas is not None
    # nothing of the small one is found before every good pixel is: half, plus the ramp of the tie
    assert areas[1] == pytest.approx(0.5 + 0.5 * 0.15)
    assert areas[0] > 0.99


def test_no_areas_without_a_marked_defect() -> None:
    curves = PixelCurves()
    assert curves.areas() is None
    curves.add(np.zeros((2, 2)), np.zeros((2, 2)))
    assert curves.areas() is None
    with pytest.raises(ValueError, match="differ, or not finite"):
        curves.add(np.zeros((2, 2)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="differ, or not finite"):
        curves.add(np.full((2, 2), np.nan), np.zeros((2, 2)))


@given(few_values)
def test_best_f1_is_the_best_of_all_thresholds(data: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in data], np.float64)
    defective = np.array([bad for _, bad in data])
    assume(0 < defective.sum() < len(data))

    def f1_at(threshold: float) -> float:
        rejected = scores >= threshold
        hits = (rejected & defective).sum()
        return float(2 * hits / (rejected.sum() + defective.sum()))

    best = best_f1(scores, defective)
    assert best.f1 == pytest.approx(max(f1_at(t) for t in scores))
    assert f1_at(best.threshold) == pytest.approx(best.f1)


def test_escapes_and_false_rejects() -> None:
    scores = [0.1, 0.5, 0.4999, math.nan, math.nan, 0.9]
    defective = [False, False, True, False, True, True]
    found = outcome(scores, defective, 0.5)
    assert (found.good, found.false_rejects) == (3, 2)  # at the threshold, and without a score
    assert (found.defective, found.escapes) == (3, 1)
