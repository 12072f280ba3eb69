"""Comparing points by several objectives at once: fronts, crowding, hypervolume. Higher is better in each.

As in NSGA-II (Deb et al., IEEE Transactions on Evolutionary Computation 2002). Shapes: N points, M objectives.
"""

import numpy as np


def ranks(values_NM: np.ndarray) -> np.ndarray:
    """Return the rank (N,) of every point: 0 where none is better, 1 where only those of rank 0 are, and so on.

    A point is better than another one if it is nowhere worse and somewhere better.
    """
    higher_NN = np.any(values_NM[:, None] > values_NM[None], axis=2)
    better_NN = higher_NN & ~higher_NN.T
    found_N = np.full(len(values_NM), -1)
    rank = 0
    while (open_N := found_N < 0).any():
        found_N[open_N & ~better_NN[open_N].any(axis=0)] = rank
        rank += 1
    return found_N


def crowding(values_NM: np.ndarray) -> np.ndarray:
    """Return how far apart (N,) the neighbors of each point of a front are.

    Distances are summed over the objectives, each relative to its range. It is infinite for the ends of an objective,
    so that a selection keeps them.
    """
    distances_N = np.zeros(len(values_NM))
    for values_N in values_NM.T:
        order_N = np.argsort(values_N, kind="stable")
        sorted_N = values_N[order_N]
        spread = sorted_N[-1] - sorted_N[0]
        distances_N[order_N[[0, -1]]] = np.inf
        if spread > 0:
            distances_N[order_N[1:-1]] += (sorted_N[2:] - sorted_N[:-2]) / spread
    return distances_N


def select(values_NM: np.ndarray, count: int) -> np.ndarray:
    """Return the places of the `count` best points, best first: by rank, and within a rank the less crowded ones.

    Of equal ones the earlier comes first.
    """
    ranks_N = ranks(values_NM)
    distances_N = np.empty(len(values_NM))
    for rank in range(ranks_N.max(initial=-1) + 1):
        front = np.flatnonzero(ranks_N == rank)
        distances_N[front] = crowding(values_NM[front])
    return np.lexsort((-distances_N, ranks_N))[:count]


def hypervolume(values_NM: np.ndarray) -> float:
    """Return the volume of what lies between the origin and the points: what is no better than one of them.

    Computed slice by slice along the last objective, for the few objectives of a search.
    """
    values_NM = values_NM[(values_NM > 0).all(axis=1)]
    if values_NM.shape[1] == 1:
        return float(values_NM.max(initial=0.0))
    values_NM = values_NM[np.argsort(-values_NM[:, -1], kind="stable")]
    below_N = np.append(values_NM[:, -1], 0.0)[1:]
    volume = 0.0
    for place, (top, bottom) in enumerate(zip(values_NM[:, -1], below_N, strict=True)):
        if top > bottom:
            volume += float(top - bottom) * hypervolume(values_NM[: place + 1, :-1])
    return volume
