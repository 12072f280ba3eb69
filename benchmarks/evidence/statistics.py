"""Rank correlation and differences, with bootstrap intervals."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 4000
"""Bootstrap samples of an interval."""


@dataclass(frozen=True)
class Estimate:
    """A figure with the ends of its 95 % interval, where one is known, and from how many values it comes."""

    value: float | None
    """None: undefined, as the rank correlation of values that are all equal."""
    low: float | None
    high: float | None
    count: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def kendall(first: ArrayLike, second: ArrayLike, seed: int = 0) -> Estimate:
    """Return Kendall's tau-b of two rankings of the same items, with a percentile bootstrap over the items.

    In a bootstrap sample, pairs of copies of one item do not count: they are no pairs of the population, and would
    be ties in both rankings.

    Args:
        first: the values of the items in one ranking, (N,), or in several, (D, N); two items or more.
        second: in the other one, or ones: tau is then the mean over the D pairs of rankings.
        seed: of the resampling.
    """
    orders_DNN = [_orders(first), _orders(second)]
    count = orders_DNN[0].shape[1]
    parts = [part.reshape(len(part), -1).T for part in (orders_DNN[0] * orders_DNN[1], *map(abs, orders_DNN))]

    def tau(weights_RN: np.ndarray) -> np.ndarray:
        pairs = (weights_RN[:, :, None] * weights_RN[:, None]).reshape(len(weights_RN), -1)
        both, mine, other = (pairs @ part for part in parts)
        with np.errstate(invalid="ignore", divide="ignore"):
            found: np.ndarray = (both / np.sqrt(mine * other)).mean(1)
        return found

    found = tau(_resampled(count, seed))
    return _estimate(float(tau(np.ones((1, count)))[0]), found[np.isfinite(found)], count)


def mean(values: ArrayLike, seed: int = 0) -> Estimate:
    """Return a mean, with a percentile bootstrap over the values; of a single value nothing is known but itself."""
    values_N = np.asarray(values, dtype=float)
    means_R = _resampled(len(values_N), seed) @ values_N / len(values_N)
    return _estimate(float(values_N.mean()), means_R if len(values_N) > 1 else np.empty(0), len(values_N))


def difference(first: ArrayLike, second: ArrayLike, seed: int = 0) -> Estimate:
    """Return the mean of one group of values minus that of another, with a percentile bootstrap over both groups."""
    groups = [np.asarray(values, dtype=float) for values in (first, second)]
    means_R = [_resampled(len(group), seed + i) @ group / len(group) for i, group in enumerate(groups)]
    return _estimate(float(groups[0].mean() - groups[1].mean()), means_R[0] - means_R[1], sum(map(len, groups)))


def _orders(values: ArrayLike) -> np.ndarray:
    """Return the signs of the differences of every two items, (D, N, N), for values (N,) or (D, N)."""
    values_DN = np.atleast_2d(np.asarray(values, dtype=float))
    signs: np.ndarray = np.sign(values_DN[:, :, None] - values_DN[:, None])
    return signs


def _resampled(count: int, seed: int) -> np.ndarray:
    """Return how often each of `count` items occurs in each bootstrap sample, (R, N)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(float)


def _estimate(value: float, found_R: np.ndarray, count: int) -> Estimate:
    low, high = map(float, np.percentile(found_R, [2.5, 97.5])) if len(found_R) else (None, None)
    return Estimate(value if np.isfinite(value) else None, low, high, count)
