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
        first: the values of the items in one ranking; two items or more.
        second: in the other.
        seed: of the resampling.
    """
    x_N, y_N = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    order_NN = [np.sign(values[:, None] - values[None]) for values in (x_N, y_N)]
    products = order_NN[0] * order_NN[1], abs(order_NN[0]), abs(order_NN[1])

    def tau(weights_RN: np.ndarray) -> np.ndarray:
        both, mine, other = (np.einsum("rn,nm,rm->r", weights_RN, part, weights_RN) for part in products)
        with np.errstate(invalid="ignore", divide="ignore"):
            found: np.ndarray = both / np.sqrt(mine * other)
        return found

    found = tau(_resampled(len(x_N), seed))
    return _estimate(float(tau(np.ones((1, len(x_N))))[0]), found[np.isfinite(found)], len(x_N))


def mean(values: ArrayLike, seed: int = 0) -> Estimate:
    """Return a mean, with a percentile bootstrap over the values; of a single value nothing is known but itself."""
    values_N = np.asarray(values, dtype=float)
    means_R = _resampled(len(values_N), seed) @ values_N / len(values_N)
    return _estimate(float(values_N.mean()), means_R if len(values_N) > 1 else np.empty(0), len(values_N))


def _resampled(count: int, seed: int) -> np.ndarray:
    """Return how often each of `count` items occurs in each bootstrap sample, (R, N)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(float)


def _estimate(value: float, found_R: np.ndarray, count: int) -> Estimate:
    low, high = map(float, np.percentile(found_R, [2.5, 97.5])) if len(found_R) else (None, None)
    return Estimate(value if np.isfinite(value) else None, low, high, count)
