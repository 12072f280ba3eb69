"""Spaces whose blocks are coupled by the widths and depths of their stages, as in ResNets."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from benchmarks.feasible_set import coupled_resnet50, tensor_sizes
from nasmvt.cost import FeasibleSet
from nasmvt.cost.tables import ItemTables, Tables
from nasmvt.space import Arch
from tests.cost.test_tables import space
from tests.search.toys import every_arch

CHOICES = {
    "stem": [1, 2],
    "width1": [4, 5],
    "depth1": [1, 2],
    "hidden1": {"options": [1, 3], "per": "depth1"},
    "width2": [6, 9],
    "depth2": [1, 2],
    "hidden2": {"options": [2, 3], "per": "depth2"},
}


def items(arch: Arch) -> dict[str, int]:
    """Every block couples to the widths before and after it; the work is that of a stage's depth squared."""
    sizes, inputs = {}, arch["stem"]
    for stage in (1, 2):
        width, hidden = arch[f"width{stage}"], arch[f"hidden{stage}"]
        for block, (inner, before) in enumerate(zip(hidden, [inputs, *[width] * len(hidden)], strict=False)):
            sizes[f"{stage}.{block}"] = inner * (before + inner + width)
        for block, (one, other) in enumerate(pairwise(hidden)):
            sizes[f"{stage}.{block}.work"] = one * other
        inputs = width
    return {**sizes, "classifier": 7 * inputs, "work": arch["depth1"] ** 2 * arch["width2"]}


def known(archs: list[Arch]) -> np.ndarray:
    columns = [{n: c for n, c in items(arch).items() if n.endswith("work")} for arch in archs]
    return np.array(
        [
            (sum(items(a).values()) - sum(work.values()), sum(work.values()))
            for a, work in zip(archs, columns, strict=True)
        ]
    )


def tables(columns: int) -> Tables:
    found = ItemTables(space(CHOICES), items)
    names = [[n for n in found.slots if n.endswith("work") == work] for work in (False, True)]
    return found.add_up([dict.fromkeys(each, 1) for each in names[:columns]])


@pytest.mark.parametrize("largest_root", [1, 4, 64])
@pytest.mark.parametrize("columns", [1, 2])
def test_counts_are_those_of_brute_force(columns, largest_root, monkeypatch) -> None:
    monkeypatch.setattr("nasmvt.cost.feasible.LARGEST_ROOT", largest_root)
    archs, entries = every_arch(space(CHOICES)), tables(columns)
    costs = known(archs)[:, :columns]
    for share in (0, 0.01, 0.2, 0.5, 0.9, 1):
        bounds = [int(np.quantile(column, share)) for column in costs.T]
        found = FeasibleSet(entries, bounds)
        assert found.size == (costs <= bounds).all(axis=1).sum()
        assert found.least_V.tolist() == costs.min(axis=0).tolist()
        assert found.most_V.tolist() == costs.max(axis=0).tolist()


@pytest.mark.parametrize("largest_root", [1, 4, 64])
@pytest.mark.parametrize("columns", [1, 2])
def test_draws_are_uniform(columns, largest_root, monkeypatch) -> None:
    """Chi-square test against enumeration; the statistic has mean and variance known from the degrees of freedom."""
    monkeypatch.setattr("nasmvt.cost.feasible.LARGEST_ROOT", largest_root)
    archs = every_arch(space(CHOICES))
    costs = known(archs)[:, :columns]
    bounds = [int(np.quantile(column, 0.6)) for column in costs.T]
    expected = {arch for arch, cost in zip(archs, costs, strict=True) if (cost <= bounds).all()}
    drawn = Counter(FeasibleSet(tables(columns), bounds).sample(50 * len(expected), np.random.default_rng(2)))
    assert drawn.keys() <= expected
    statistic, freedom = sum((drawn[arch] - 50) ** 2 / 50 for arch in expected), len(expected) - 1
    assert abs(statistic - freedom) < 3 * (2 * freedom) ** 0.5


def test_a_resnet50_is_counted_without_rounding(monkeypatch) -> None:
    """Archs within a bound, and those above it, counted by their negated costs, are all archs: 8.5e10, exactly."""
    monkeypatch.setattr("nasmvt.cost.feasible._ROUNDS", 1)  # a draw above the bound is refused
    one = coupled_resnet50()
    found = ItemTables(one, tensor_sizes)
    costs = found.add_up([dict.fromkeys(found.slots, 1)])
    negated = Tables(one, {slots: -values for slots, values in costs.entries.items()})
    least, most = (int(costs.of(arch)[0]) for arch in (one.smallest, one.largest))
    for bound in (least, least + (most - least) // 100, (least + most) // 2, most - 1):
        within = FeasibleSet(costs, [bound])
        assert 0 < within.size == one.size - FeasibleSet(negated, [-bound - 1]).size
        assert (costs(within.sample_indices(200, np.random.default_rng(0))) <= bound).all()
    assert FeasibleSet(costs, [least]).size == FeasibleSet(negated, [-most]).size == 1
