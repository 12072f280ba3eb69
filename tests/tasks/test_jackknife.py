"""Intervals of differences."""

from math import sqrt
from statistics import fmean, stdev

import numpy as np
import pytest

from nasmvt.tasks.jackknife import GROUPS, interval


def test_for_a_mean_it_is_the_textbook_interval() -> None:
    """With one image per group: mean +- t(19) s / sqrt(20)."""
    values = np.random.default_rng(0).normal(3, 2, GROUPS).tolist()
    total = sum(values)
    without = [(total - value) / (GROUPS - 1) for value in values]
    middle, low, high = interval([fmean(values)], without)
    assert middle == fmean(values)
    half = 2.093 * stdev(values) / sqrt(GROUPS)
    assert (low, high) == pytest.approx((middle - half, middle + half))


def test_the_spread_over_seeds_adds_to_that_over_images() -> None:
    middle, low, high = interval([1.0, 3.0, 5.0], [3.0] * GROUPS)  # images make no difference
    assert middle == 3
    assert (low, high) == pytest.approx((3 - 4.303 * 2 / sqrt(3), 3 + 4.303 * 2 / sqrt(3)))


@pytest.mark.parametrize("seed", range(3))
def test_about_95_of_100_intervals_hold_the_true_value(seed) -> None:
    """Of a ratio, which is no mean: 300 data sets of 200 images."""
    rng = np.random.default_rng(seed)
    held = 0
    for _ in range(300):
        hits, objects = rng.binomial(5, 0.4, 200), rng.integers(5, 8, 200)

        def ratio(kept, hits=hits, objects=objects) -> float:
            return hits[kept].sum() / objects[kept].sum()

        groups = np.arange(200) % GROUPS
        _, low, high = interval([ratio(groups >= 0)], [ratio(groups != group) for group in range(GROUPS)])
        held += low <= 5 * 0.4 / 6 <= high
    assert 0.90 < held / 300 < 0.99
