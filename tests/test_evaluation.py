"""Areas against their definitions, swept threshold by threshold, and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics  # type: ignore[import-untyped]

from efficientad_stream.core.evaluation import at_escapes, auroc, best_f1, outcome
from efficientad_stream.core.localisation import NARROW, WIDE, PixelCurves, Region

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


def regions_of(labels: np.ndarray) -> list[Region]:
    """Each number of ``labels`` is a region of which all is to be found."""
    flat = labels.ravel()
    found = [np.flatnonzero(flat == number) for number in range(1, int(labels.max()) + 1)]
    return [Region(inside, inside.size) for inside in found if inside.size]


def swept(maps: list[np.ndarray], regions: list[list[Region]], limit: float) -> float:
    """Definition of the AU-sPRO: every threshold in turn, trapezoids up to the limit.

    Bergmann et al. 2022, equation 1: the mean over regions of min(|found| / saturation, 1).
    """
    flat = [m.ravel() for m in maps]
    outside = []
    for values, some in zip(flat, regions, strict=True):
        marked = {int(position) for region in some for position in region.inside}
        outside += [float(v) for position, v in enumerate(values) if position not in marked]
    rates, overlaps = [0.0], [0.0]
    for threshold in sorted({float(v) for values in flat for v in values}, reverse=True):
        shares = [
            min(sum(values[p] >= threshold for p in region.inside) / region.saturation, 1.0)
            for values, some in zip(flat, regions, strict=True)
            for region in some
        ]
        rates.append(float(np.mean([v >= threshold for v in outside])))
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


def some_images(seed: int, ties: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Maps of 6 x 7 and labels: two images with one or two defects, and a good one."""
    rng = np.random.default_rng(seed)
    labels = []
    for image in range(3):
        mark = np.zeros((6, 7), np.int32)
        if image:
            mark[1:3, 1:4] = rng.integers(0, 2)
            mark[4, 5:] = mark.max() + 1
        labels.append(mark)
    maps = [(rng.normal(size=(6, 7)) + (mark > 0)).astype(np.float32) for mark in labels]
    return [np.round(m) for m in maps] if ties else maps, labels


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.booleans())
def test_au_pro_is_the_swept_one(seed: int, ties: bool) -> None:
    maps, labels = some_images(seed, ties)
    regions = [regions_of(mark) for mark in labels]
    curves = PixelCurves()
    for one, some in zip(maps, regions, strict=True):
        curves.add(one, some)
    areas = curves.areas()
    assert areas is not None
    assert areas.pro_30 == areas.spro_30 == pytest.approx(swept(maps, regions, WIDE))
    assert areas.pro_5 == areas.spro_5 == pytest.approx(swept(maps, regions, NARROW))
    flat = np.concatenate([m.ravel() for m in maps])
    inside = np.concatenate([mark.ravel() > 0 for mark in labels])
    assert areas.auroc == pytest.approx(metrics.roc_auc_score(inside, flat))
    assert areas.regions == curves.regions == sum(int(mark.max()) for mark in labels)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.booleans())
def test_au_spro_is_the_swept_one(seed: int, ties: bool) -> None:
    """Regions that overlap and saturate early, as those of MVTec LOCO do."""
    rng = np.random.default_rng(seed)
    maps, _ = some_images(seed, ties)
    regions: list[list[Region]] = [[]]
    for _ in maps[1:]:
        sizes = rng.integers(1, 12, size=rng.integers(1, 4))
        inside = [np.sort(rng.choice(42, size, replace=False)) for size in sizes]
        regions.append([Region(i, int(rng.integers(1, i.size + 1))) for i in inside])
    curves = PixelCurves()
    for one, some in zip(maps, regions, strict=True):
        curves.add(one, some)
    areas = curves.areas()
    assert areas is not None
    assert areas.spro_30 == pytest.approx(swept(maps, regions, WIDE))
    assert areas.spro_5 == pytest.approx(swept(maps, regions, NARROW))
    whole = [[Region(r.inside, r.inside.size) for r in some] for some in regions]
    assert areas.pro_30 == pytest.approx(swept(maps, whole, WIDE))
    assert areas.spro_30 >= areas.pro_30 - 1e-12


def test_a_saturated_defect_by_hand() -> None:
    """Ten good pixels from 0 to 9; a defect of four pixels, of which two are enough.

    The two hottest score 9.5 and 7.5: half at no false positive, all from two in ten on.
    """
    anomaly_map = np.array([*range(10), 9.5, 7.5, -1, -1], np.float32)
    curves = PixelCurves()
    curves.add(anomaly_map, [Region(np.array([10, 11, 12, 13]), 2)])
    areas = curves.areas()
    assert areas is not None
    assert areas.spro_5 == pytest.approx(0.5)
    assert areas.spro_30 == pytest.approx((0.2 * 0.5 + 0.1 * 1.0) / 0.3)
    assert areas.pro_30 == pytest.approx((0.2 * 0.25 + 0.1 * 0.5) / 0.3)


def test_a_kind_is_measured_against_the_good_ones_and_itself() -> None:
    maps, labels = some_images(3, ties=False)
    together, apart = PixelCurves(), PixelCurves()
    for kind, one, mark in zip(("good", "a", "b"), maps, labels, strict=True):
        together.add(one, regions_of(mark), kind)
        if kind != "b":
            apart.add(one, regions_of(mark))
    assert together.areas(("good", "a")) == apart.areas()
    assert together.areas() != apart.areas()
    assert together.areas(("good",)) is None
    apart.add(maps[2], regions_of(labels[2]))
    assert apart.areas() == together.areas(), "what is added later counts as well"


def test_a_small_defect_counts_as_much_as_a_large_one() -> None:
    labels = np.zeros((20, 20), np.int32)
    labels[:10] = 1
    labels[15, 15] = 2
    found_large = (labels == 1).astype(np.float32)
    curves = PixelCurves()
    curves.add(found_large, regions_of(labels))
    areas = curves.areas()
    assert areas is not None
    # nothing of the small one is found before every good pixel is: half, plus the ramp of the tie
    assert areas.pro_30 == pytest.approx(0.5 + 0.5 * 0.15)
    assert areas.auroc > 0.99


def test_no_areas_without_a_marked_defect() -> None:
    curves = PixelCurves()
    assert curves.areas() is None
    curves.add(np.zeros((2, 2)), [])
    assert curves.areas() is None
    only_bad = PixelCurves()
    only_bad.add(np.zeros((1, 1)), [Region(np.array([0]), 1)])
    assert only_bad.areas() is None


@pytest.mark.parametrize(
    ("inside", "saturation", "problem"),
    [
        ([4], 1, "not inside"),
        ([-1], 1, "not inside"),
        ([], 1, "empty"),
        ([0, 1], 3, "cannot saturate at 3"),
        ([0, 1], 0, "cannot saturate at 0"),
    ],
)
def test_regions_that_cannot_be(inside: list[int], saturation: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        PixelCurves().add(np.zeros((2, 2)), [Region(np.array(inside, np.int64), saturation)])


def test_a_map_that_is_not_finite() -> None:
    with pytest.raises(ValueError, match="not finite"):
        PixelCurves().add(np.full((2, 2), np.nan), [])


@given(few_values)
def test_scikit_learn_agrees(data: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in data], np.float64)
    defective = np.array([bad for _, bad in data])
    assume(0 < defective.sum() < len(data))
    assert auroc(scores, defective) == pytest.approx(metrics.roc_auc_score(defective, scores))
    precision, recall, _ = metrics.precision_recall_curve(defective, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert best_f1(scores, defective).f1 == pytest.approx(f1.max())
    fpr, tpr, _ = metrics.roc_curve(defective, scores, drop_intermediate=False)
    for point in at_escapes(scores, defective, (0.0, 0.05, 0.3, 0.9)):
        enough = tpr >= 1.0 - point.allowed - 1e-9
        assert point.false_reject_rate == pytest.approx(fpr[enough].min())
        assert point.escapes <= point.allowed * defective.sum() + 1e-9


def test_false_rejects_at_given_escapes_by_hand() -> None:
    scores = [0.1, 0.2, 0.3, 0.4, math.nan, 0.25, 0.35, 0.9, math.nan]
    defective = [False] * 5 + [True] * 4
    none, quarter = at_escapes(scores, defective, (0.0, 0.25))
    assert (none.threshold, none.escapes, none.false_rejects) == (0.25, 0, 3)
    assert (quarter.threshold, quarter.escapes, quarter.false_rejects) == (0.35, 1, 2)
    assert quarter.false_reject_rate == pytest.approx(2 / 5)


def test_operating_points_that_cannot_be() -> None:
    (point,) = at_escapes([0.1, math.nan], [False, True], (0.0,))
    assert (point.threshold, point.escapes, point.false_rejects) == (math.inf, 0, 0)
    with pytest.raises(ValueError, match="good and defective"):
        at_escapes([0.1], [True])
    with pytest.raises(ValueError, match="no share"):
        at_escapes([0.1, 0.2], [False, True], (1.0,))


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
