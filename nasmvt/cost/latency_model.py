"""From the times of some archs to tables for all: least squares over the parts that the tables of operations know.

An arch's time is taken for a sum: a constant, a share of its multiply-accumulates, and a time for each part of its
networks, such as "a block of width 48 with 2 heads". What a part is, the tables of multiply-accumulates say: the slots
that an item depends on. A part has one time wherever it stands, and a deviation from it in each place. Times and
deviations are held small (ridge regression, equal to a Gaussian process on sums); how small, is chosen by leaving one
arch out after the other.

Shapes: N archs, K kernels.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.stats import rankdata

from nasmvt.cost.tables import Slots, Tables, spread
from nasmvt.space import Arch, SearchSpace

Key = tuple[Hashable, ...]

DRAWS = 64
"""Random archs of which the one that shows the most rarely seen parts is timed next."""
_VAGUE = 1.0
"""Variance of the constant and of the share of work about a constant of the mean time, in squares of that."""
_NOISE = 0.02
"""Deviation of a measurement that is assumed, relative."""
_TIED = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_OWN = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Deviations of the times of parts, and of their deviations by place, that are tried; relative to the mean time."""


class Parts:
    """The parts of which the archs of a space are made.

    Args:
        space: the space.
        cut: the tables of multiply-accumulates, whose sets of slots say what depends on what together.
    """

    def __init__(self, space: SearchSpace, cut: Tables) -> None:
        self.space = space
        singles = ((slot,) for slot in range(len(space.slots)))
        self.groups = sorted({self._closed(slots) for slots in (*cut.entries, *singles)} - {()})
        self._found: dict[tuple[Slots, Slots], tuple[Key, Key] | None] = {}

    def of(self, indices: Sequence[int]) -> Iterator[tuple[Key, Key]]:
        """Yield the parts of an arch, given by option indices: its name wherever it stands, and its place as well."""
        for slots in self.groups:
            if found := self.part(slots, tuple(int(indices[slot]) for slot in slots)):
                yield found

    def part(self, slots: Slots, options: Slots) -> tuple[Key, Key] | None:
        """Return the part that stands for some slots' options; None if its block does not exist."""
        if (slots, options) not in self._found:
            self._found[slots, options] = self._part(slots, options)
        return self._found[slots, options]

    def _part(self, slots: Slots, options: Slots) -> tuple[Key, Key] | None:
        given = dict(zip(slots, options, strict=True))
        if not all(self.space.is_active(slot, given) for slot in slots):
            return None
        counts = {self.space.count_slots[slot] for slot in slots}
        shown = [slot for slot in slots if slot not in counts]
        name = tuple((self.space.slots[slot][0], given[slot]) for slot in shown)
        return name, tuple((slot, given[slot]) for slot in shown)

    def _closed(self, slots: Slots) -> Slots:
        """Return slots with those that say whether their blocks exist."""
        counts = (self.space.count_slots[slot] for slot in slots)
        return tuple(sorted({*slots, *(count for count in counts if count is not None)}))


def design(parts: Parts, count: int, rng: np.random.Generator) -> list[Arch]:
    """Return different archs in which every part of the space's archs is seen, as evenly as may be.

    Args:
        parts: of the space.
        count: how many archs; there are fewer if the space has no more.
        rng: source of randomness.
    """
    space = parts.space
    chosen = dict.fromkeys([space.largest, space.smallest][:count])
    seen: Counter[Key] = Counter()

    def keys(arch: Arch) -> set[Key]:
        return {key for part in parts.of(space.encode(arch).tolist()) for key in part}

    for arch in chosen:
        seen.update(keys(arch))
    while len(chosen) < min(count, space.size):
        drawn = [arch for arch in (space.sample(rng) for _ in range(DRAWS)) if arch not in chosen]
        known = [(arch, keys(arch)) for arch in dict.fromkeys(drawn)]
        if known:
            arch, its = max(known, key=lambda pair: sum(1 / (1 + seen[key]) ** 2 for key in pair[1]))
            chosen[arch] = None
            seen.update(its)
    return list(chosen)


def fit(parts: Parts, cut: Tables, archs: Sequence[Arch], milliseconds: Sequence[float]) -> Tables:
    """Return tables of microseconds, a single column.

    Args:
        parts: of the space.
        cut: the tables of multiply-accumulates.
        archs: those that were timed.
        milliseconds: what each took.
    """
    space = parts.space
    indices_NS = np.stack([space.encode(arch) for arch in archs])
    mean = float(np.mean(milliseconds))
    work_N = cut(indices_NS)[:, 0] / max(float(cut(indices_NS)[:, 0].mean()), 1.0)
    lists = [list(parts.of(indices)) for indices in indices_NS.tolist()]
    tied = _Counts([[name for name, _ in its] for its in lists])
    own = _Counts([[place for _, place in its] for its in lists])
    weights = _solve(np.asarray(milliseconds) / mean, work_N, tied.gram, own.gram)
    per_mac = weights.work * mean * 1000 / max(float(cut(indices_NS)[:, 0].mean()), 1.0)
    names, places = tied.weights(weights.tied_N), own.weights(weights.own_N)

    sums: dict[Slots, np.ndarray] = {(): np.array([weights.constant * mean * 1000])}
    homes = sorted({*parts.groups, *cut.entries}, key=lambda slots: (-len(slots), slots))
    for slots in homes:  # each into a table that holds its slots anyway
        home = next(other for other in homes if {*slots} <= {*other})
        values = np.zeros(_shape(space, slots))
        if slots in cut.entries:
            values += per_mac * cut.entries[slots]
        if slots in parts.groups:
            for options in product(*(range(space.slot_sizes[slot]) for slot in slots)):
                if found := parts.part(slots, options):
                    name, place = found
                    values[options] += 1000 * mean * (names.get(name, 0.0) + places.get(place, 0.0))
        sums[home] = sums.get(home, np.zeros(_shape(space, home))) + spread(slots, values, home)
    return Tables(space, {slots: np.rint(values).astype(np.int64) for slots, values in sums.items()})


def agreement(predicted: Sequence[float], measured: Sequence[float]) -> tuple[float, float]:
    """Return the median of the relative errors, and Spearman's rank correlation (0 where all are equal)."""
    expected, found = np.asarray(measured, dtype=float), np.asarray(predicted, dtype=float)
    error = float(np.median(np.abs(found / expected - 1)))
    ranks = [rankdata(values) for values in (found, expected)]
    if min(rank.std() for rank in ranks) == 0:
        return error, 0.0
    return error, float(np.corrcoef(*ranks)[0, 1])


@dataclass(frozen=True)
class _Weights:
    """A solution: constant, work, and by arch what its parts are multiplied with."""

    constant: float
    work: float
    tied_N: np.ndarray
    own_N: np.ndarray


def _solve(times_N: np.ndarray, work_N: np.ndarray, tied_NN: np.ndarray, own_NN: np.ndarray) -> _Weights:
    """Return the regression, relative errors being weighed, whose leave-one-out errors are least."""
    vague_NN = _VAGUE * (1 + np.outer(work_N, work_N))
    noise_NN = np.diag((_NOISE * times_N) ** 2)
    best: tuple[float, float, float, np.ndarray] | None = None
    for tied, own in product(_TIED, _OWN):
        inverse_NN = np.linalg.inv(vague_NN + tied**2 * tied_NN + own**2 * own_NN + noise_NN)
        alpha_N = inverse_NN @ (times_N - 1)
        missed = float(np.abs(alpha_N / np.diag(inverse_NN) / times_N).mean())
        if best is None or missed < best[0]:
            best = missed, tied, own, alpha_N
    assert best is not None
    _, tied, own, alpha_N = best
    constant, work = 1 + _VAGUE * float(alpha_N.sum()), _VAGUE * float(alpha_N @ work_N)
    return _Weights(constant, work, tied**2 * alpha_N, own**2 * alpha_N)


class _Counts:
    """How often each key occurs in each arch."""

    def __init__(self, lists: Iterable[list[Key]]) -> None:
        counters = [Counter(keys) for keys in lists]
        self._keys = list(dict.fromkeys(key for counter in counters for key in counter))
        self._counts_NK = np.array([[counter[key] for key in self._keys] for counter in counters], dtype=float)

    @property
    def gram(self) -> np.ndarray:
        """The inner products of archs (N, N)."""
        products: np.ndarray = self._counts_NK @ self._counts_NK.T
        return products

    def weights(self, of_N: np.ndarray) -> dict[Key, float]:
        """Return the weight of every key, given those of archs."""
        return dict(zip(self._keys, (of_N @ self._counts_NK).tolist(), strict=True))


def _shape(space: SearchSpace, slots: Slots) -> tuple[int, ...]:
    return (*(space.slot_sizes[slot] for slot in slots), 1)
