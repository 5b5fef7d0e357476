from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from efficientad_stream.core.calibration import (
    RELATIVE_ERROR,
    SMALLEST,
    SMALLEST_MARGIN,
    QuantileCollector,
    exact_quantile,
    threshold_from_good,
)

maps = arrays(
    np.float32,
    st.integers(1, 200),
    elements=st.floats(0, float(np.float32(1e30)), width=32),
)
probabilities = st.floats(0, 1)


@given(maps, probabilities)
def test_exact_quantile_is_numpys(values: np.ndarray, p: float) -> None:
    wanted = float(np.quantile(values.astype(np.float64), p))
    assert exact_quantile(values, p) == pytest.approx(wanted, rel=1e-9, abs=1e-300)


@given(maps, probabilities)
def test_the_stream_stays_within_its_bound(values: np.ndarray, p: float) -> None:
    collector = QuantileCollector(exact_limit=0)
    for part in np.array_split(values, 3):
        collector.add(part)
    assert not collector.exact
    exact = exact_quantile(values, p)
    assert abs(collector.quantile(p) - exact) <= RELATIVE_ERROR * exact * (1 + 1e-9) + SMALLEST


@pytest.mark.parametrize("p", [0.9, 0.995])
def test_both_ways_agree_on_the_maps_of_a_real_size(p: float) -> None:
    rng = np.random.default_rng(0)
    exact, stream = QuantileCollector(), QuantileCollector(exact_limit=100_000)
    for _ in range(60):
        one = rng.gamma(2.0, 0.1, (56, 56)).astype(np.float32)
        exact.add(one)
        stream.add(one)
    assert exact.exact
    assert not stream.exact
    assert exact.count == stream.count == 60 * 56 * 56
    assert stream.quantile(p) == pytest.approx(exact.quantile(p), rel=RELATIVE_ERROR)
    assert stream.quantile(p) != exact.quantile(p), "the histogram was not used"


def test_more_values_than_torch_quantile_takes() -> None:
    n = (1 << 24) + 10
    values = np.arange(n, dtype=np.float32)[::-1]
    collector = QuantileCollector()
    collector.add(values)
    assert collector.exact
    assert collector.quantile(0.5) == pytest.approx((n - 1) / 2, rel=1e-6)


def test_what_was_added_may_change_afterwards() -> None:
    one = np.ones(4, np.float32)
    collector = QuantileCollector()
    collector.add(one)
    one[:] = 9
    assert collector.quantile(1.0) == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1e-3])
@pytest.mark.parametrize("limit", [0, 1000])
def test_no_quantile_of_what_is_not_a_map(bad: float, limit: int) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        QuantileCollector(limit).add(np.array([1.0, bad]))


def test_no_quantile_of_nothing() -> None:
    with pytest.raises(ValueError, match="of 0 values"):
        QuantileCollector().quantile(0.5)
    with pytest.raises(ValueError, match=r"no quantile 1\.5"):
        exact_quantile([1.0], 1.5)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60), st.floats(1e-6, 0.5))
def test_known_good_parts_pass_with_a_margin(scores: list[float], p: float) -> None:
    tail = threshold_from_good(scores, p)
    assert tail.worst == max(scores)
    assert tail.threshold >= max(scores) + SMALLEST_MARGIN * (1 - 1e-9)
    assert math.isfinite(tail.threshold)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=60))
def test_a_rarer_false_reject_needs_a_higher_threshold(scores: list[float]) -> None:
    often, seldom = threshold_from_good(scores, 0.1), threshold_from_good(scores, 1e-4)
    assert seldom.threshold >= often.threshold


def test_an_exponential_tail_is_found_again() -> None:
    rng = np.random.default_rng(0)
    tails = [threshold_from_good(rng.exponential(0.1, 100) + 0.2, 1e-3) for _ in range(300)]
    assert all(tail.tail_parts == 34 for tail in tails)
    right = 0.2 + 0.1 * math.log(1000)
    thresholds = [tail.threshold for tail in tails]
    assert np.mean(thresholds) == pytest.approx(right, rel=0.03)
    assert np.std(thresholds) < np.std([tail.worst for tail in tails])


def test_by_hand() -> None:
    # the upper third: 0.5 and 0.7, which exceed 0.3 by 0.3 on average
    tail = threshold_from_good([0.0, 0.1, 0.2, 0.3, 0.7, 0.5], 0.01)
    assert tail.tail_parts == 2
    assert tail.tail_scale == pytest.approx(0.3)
    assert tail.threshold == pytest.approx(0.3 + 0.3 * math.log(2 / (6 * 0.01)))


def test_one_part_says_little_and_equal_parts_still_leave_a_margin() -> None:
    assert threshold_from_good([0.4]).threshold == pytest.approx(0.4 + SMALLEST_MARGIN)
    assert threshold_from_good([0.4] * 20).threshold == pytest.approx(0.4 + SMALLEST_MARGIN)


@pytest.mark.parametrize(
    ("scores", "p"), [([], 0.1), ([math.nan], 0.1), ([1.0], 0.0), ([1.0], 1.0)]
)
def test_no_threshold_without_scores_or_probability(scores: list[float], p: float) -> None:
    with pytest.raises(ValueError, match=r"threshold|false_rejects"):
        threshold_from_good(scores, p)
