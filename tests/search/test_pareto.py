"""Fronts, crowding and hypervolume against pymoo, which minimizes."""

import numpy as np
import pytest
from pymoo.indicators.hv import HV
from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from nasmvt.search.pareto import crowding, hypervolume, ranks, select


def points(seed: int, count: int, objectives: int, levels: int | None = None) -> np.ndarray:
    """Random points in the unit cube; few levels give equal values."""
    values_NM = np.random.default_rng(seed).random((count, objectives))
    return values_NM if levels is None else np.floor(values_NM * levels) / levels


CASES = pytest.mark.parametrize(
    ("seed", "count", "objectives", "levels"),
    [
        (0, 1, 2, None),
        (1, 50, 2, None),
        (2, 50, 3, None),
        (3, 40, 4, None),
        (4, 60, 2, 4),
        (5, 60, 3, 3),
        (6, 5, 1, 2),
    ],
)


@CASES
def test_ranks(seed, count, objectives, levels) -> None:
    values_NM = points(seed, count, objectives, levels)
    _, expected_N = NonDominatedSorting().do(-values_NM, return_rank=True)
    assert ranks(values_NM).tolist() == expected_N.tolist()


@CASES
def test_hypervolume(seed, count, objectives, levels) -> None:
    values_NM = points(seed, count, objectives, levels)
    expected = HV(ref_point=np.zeros(objectives))(-values_NM)
    assert hypervolume(values_NM) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("objectives", [2, 3])
def test_crowding(objectives) -> None:
    values_NM = points(7, 60, objectives)
    front_NM = values_NM[ranks(values_NM) == 0]
    expected_N = calc_crowding_distance(-front_NM, filter_out_duplicates=False) * objectives  # theirs is the mean
    np.testing.assert_allclose(crowding(front_NM), expected_N, rtol=1e-9)


def test_a_point_beyond_the_reference_has_no_volume() -> None:
    assert hypervolume(np.array([[0.5, -0.1], [0.0, 1.0]])) == 0
    assert hypervolume(np.empty((0, 2))) == 0
    assert hypervolume(np.array([[0.5, 0.2], [0.2, 0.5], [0.5, 0.2]])) == pytest.approx(0.16)


def test_selection_takes_the_first_front_and_then_what_is_apart() -> None:
    values_NM = np.array([[0.0, 1.0], [0.5, 0.5], [0.52, 0.49], [1.0, 0.0], [0.1, 0.1]])
    assert set(select(values_NM, 2)) == {0, 3}  # the ends
    assert set(select(values_NM, 3)) < {0, 1, 2, 3}
    assert select(values_NM, 5)[-1] == 4  # dominated
    equal_NM = np.zeros((4, 2))
    assert select(equal_NM, 2).tolist() == [0, 3]  # the ends in the order given
