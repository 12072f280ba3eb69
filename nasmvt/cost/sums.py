"""Distinct sums of costs, the ways in which each comes about, and uniform draws of one way.

Sums are built from smaller ones: `Joined` chooses from two sets independently, `Either` chooses an option of a slot and
then from the set that the option leaves. Each remembers which of its candidates make up a sum, in four bytes each.

Shapes: N draws, S slots of the space, V bounds, D distinct sums, K candidates, O options.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

_NEVER = 2**62
"""Above any sum."""


class Sums(ABC):
    """A set of sums; it may be empty where several bounds exclude all of it.

    Attributes:
        values_DV: the distinct sums, int64.
        ways_D: the number of ways in which each comes about, as a float (exact up to 2**53).
    """

    values_DV: np.ndarray
    ways_D: np.ndarray

    def __len__(self) -> int:
        return len(self.values_DV)

    @abstractmethod
    def draw(self, picked_N: np.ndarray, rows_N: np.ndarray, drawn_NS: np.ndarray, rng: np.random.Generator) -> None:
        """Write into some rows of option indices, for a given sum each, one of the ways that lead to it.

        Args:
            picked_N: places of the sums in `values_DV`.
            rows_N: the rows of `drawn_NS` that are written, one per sum.
            drawn_NS: option indices.
            rng: source of randomness; each way has the same chance.
        """


class Nothing(Sums):
    """No choice at all: the sum is 0, in one way."""

    def __init__(self, columns: int) -> None:
        self.values_DV = np.zeros((1, columns), dtype=np.int64)
        self.ways_D = np.ones(1)

    def draw(self, picked_N: np.ndarray, rows_N: np.ndarray, drawn_NS: np.ndarray, rng: np.random.Generator) -> None:
        """Write nothing."""


class _Gathered(Sums):
    """Candidates brought together by their values."""

    def _gather(self, values_KV: np.ndarray, slack_V: np.ndarray) -> None:
        """Find the distinct values; those that pass the least by more than the slack are dropped."""
        least_V = values_KV.min(axis=0, initial=_NEVER)
        kept_K = np.flatnonzero((values_KV <= least_V + slack_V).all(axis=1))
        values_KV = values_KV[kept_K]
        order_K = np.lexsort(values_KV.T) if values_KV.shape[1] else np.arange(len(values_KV))
        values_KV = values_KV[order_K]
        new_K = np.ones(len(values_KV), dtype=bool)
        new_K[1:] = (values_KV[1:] != values_KV[:-1]).any(axis=1)
        starts_D = np.flatnonzero(new_K)
        self._candidates_K = kept_K[order_K].astype(np.int32)
        self._bounds = np.append(starts_D, len(values_KV))
        self.values_DV = values_KV[starts_D]
        self.ways_D = np.add.reduceat(self._ways(self._candidates_K), starts_D)

    @abstractmethod
    def _ways(self, candidates_K: np.ndarray) -> np.ndarray:
        """Return the ways of some candidates."""

    def _origins(self, picked_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw a candidate (N,) for each of some sums, by its ways."""
        ends, place_N = np.unique(picked_N, return_inverse=True)
        lengths = self._bounds[ends + 1] - self._bounds[ends]
        firsts = np.cumsum(lengths) - lengths
        places = np.repeat(self._bounds[ends] - firsts, lengths) + np.arange(lengths.sum())
        candidates = self._candidates_K[places]
        shares = self._ways(candidates) / np.repeat(self.ways_D[ends], lengths)
        cumulated = np.cumsum(shares)
        low, high = cumulated[firsts] - shares[firsts], cumulated[firsts + lengths - 1]
        drawn_N = low[place_N] + rng.random(len(place_N)) * (high - low)[place_N]
        found_N = np.searchsorted(cumulated, drawn_N, side="right")
        origins_N: np.ndarray = candidates[found_N.clip(firsts[place_N], (firsts + lengths - 1)[place_N])]
        return origins_N


class Joined(_Gathered):
    """One choice of each of two sets: their sums added up in all pairs.

    Args:
        first: a set.
        second: another one, over other slots.
        slack_V: sums that pass the least by more are dropped.
    """

    def __init__(self, first: Sums, second: Sums, slack_V: np.ndarray) -> None:
        self._first, self._second = first, second
        pairs = first.values_DV[:, None] + second.values_DV[None]
        self._gather(pairs.reshape(len(first) * len(second), len(slack_V)), slack_V)

    def _ways(self, candidates_K: np.ndarray) -> np.ndarray:
        first_K, second_K = np.divmod(candidates_K, len(self._second))
        ways_K: np.ndarray = self._first.ways_D[first_K] * self._second.ways_D[second_K]
        return ways_K

    def draw(self, picked_N: np.ndarray, rows_N: np.ndarray, drawn_NS: np.ndarray, rng: np.random.Generator) -> None:
        """Draw a pair, and then of each set."""
        first_N, second_N = np.divmod(self._origins(picked_N, rng), len(self._second))
        self._first.draw(first_N, rows_N, drawn_NS, rng)
        self._second.draw(second_N, rows_N, drawn_NS, rng)


class Either(_Gathered):
    """An option of a slot, and a choice of the set that goes with it.

    Args:
        slot: the slot.
        costs_OV: what each option costs itself.
        sets: the set of each option.
        slack_V: sums that pass the least by more are dropped.
    """

    def __init__(self, slot: int, costs_OV: np.ndarray, sets: Sequence[Sums], slack_V: np.ndarray) -> None:
        self._slot, self._sets = slot, sets
        self._starts = np.cumsum([0, *map(len, sets)])
        self._ways_K = np.concatenate([one.ways_D for one in sets])
        self._gather(
            np.concatenate([one.values_DV + cost_V for one, cost_V in zip(sets, costs_OV, strict=True)]), slack_V
        )

    def _ways(self, candidates_K: np.ndarray) -> np.ndarray:
        ways_K: np.ndarray = self._ways_K[candidates_K]
        return ways_K

    def draw(self, picked_N: np.ndarray, rows_N: np.ndarray, drawn_NS: np.ndarray, rng: np.random.Generator) -> None:
        """Draw an option, and then of its set."""
        origins_N = self._origins(picked_N, rng)
        options_N = np.searchsorted(self._starts, origins_N, side="right") - 1
        drawn_NS[rows_N, self._slot] = options_N
        for option in np.unique(options_N):
            chosen = np.flatnonzero(options_N == option)
            self._sets[option].draw(origins_N[chosen] - self._starts[option], rows_N[chosen], drawn_NS, rng)


class SumSets:
    """Makes the messages of an `Elimination`: sets of sums.

    Args:
        slack_V: sums that pass the least of their set by more are dropped.
        limit: candidates for sums that may be formed in all.
    """

    def __init__(self, slack_V: np.ndarray, limit: int) -> None:
        self._slack_V, self._left = slack_V, limit

    def together(self, messages: Sequence[Sums]) -> Sums:
        """Join sets of independent slots.

        Raises:
            TooManyError: if the limit is passed.
        """
        joined, *others = messages or [Nothing(len(self._slack_V))]
        for other in others:
            self._count([len(joined), len(other)], len(joined) * len(other))
            joined = Joined(joined, other, self._slack_V)
        return joined

    def either(self, slot: int, costs_OV: np.ndarray, messages: Sequence[Sums]) -> Sums:
        """Bring the options of a slot together.

        Raises:
            TooManyError: if the limit is passed.
        """
        lengths = [*map(len, messages)]
        self._count(lengths, sum(lengths))
        return Either(slot, costs_OV, messages, self._slack_V)

    def halves(self, messages: Sequence[Sums]) -> tuple[Sums, Sums]:
        """Join sets from both ends, the half with fewer sums first, since sums of like sets coincide.

        Raises:
            TooManyError: if the limit is passed.
        """
        left = right = self.together([])
        first, last = 0, len(messages) - 1
        while first <= last:
            if len(left) <= len(right):
                left = self.together([left, messages[first]])
                first += 1
            else:
                right = self.together([right, messages[last]])
                last -= 1
        return left, right

    def _count(self, lengths: Sequence[int], candidates: int) -> None:
        if sum(length > 1 for length in lengths) > 1:  # rounding leaves fewer
            self._left -= candidates
        if self._left < 0:
            raise TooManyError


class TooManyError(Exception):
    """There are more candidates for sums than memory should hold."""
