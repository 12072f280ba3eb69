"""Archs within bounds: counted, drawn uniformly, repaired."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from nasmvt.cost import FeasibleSet
from nasmvt.cost.tables import ItemTables
from nasmvt.space import Arch, SearchSpace
from tests.cost.test_tables import space
from tests.search.toys import every_arch

CHOICES = {
    "depth": [1, 2, 3],
    "width": [2, 3],
    "heads": {"options": [1, 2, 4], "per": "depth"},
    "ratio": {"options": [1, 3], "per": "depth"},
}


def costs(arch: Arch) -> dict[str, int]:
    sizes = {}
    for block, (heads, ratio) in enumerate(zip(arch["heads"], arch["ratio"], strict=True)):
        sizes[f"{block}.a"] = arch["width"] * heads * (block + 1)
        sizes[f"{block}.b"] = 5 * ratio
        sizes[f"{block}.c"] = heads * ratio
    return {**sizes, "stem": 3 * arch["width"], "work": sum(arch["heads"]) * 2}


def total(arch: Arch) -> int:
    return sum(cost for name, cost in costs(arch).items() if name != "work")


def feasible(one: SearchSpace, *bounds: int, floors: Sequence[int | None] = ()) -> FeasibleSet:
    """Bounds on the sum, and perhaps on the work."""
    items = ItemTables(one, costs)
    columns = [{name: 1 for name in items.slots if name != "work"}, {"work": 1}]
    return FeasibleSet(items.add_up(columns[: len(bounds)]), bounds, floors)


def within(one: SearchSpace, *bounds: int, floors: Sequence[int | None] = (None, None)) -> set[Arch]:
    return {
        arch
        for arch in every_arch(one)
        if all(
            (floor is None or floor <= cost) and cost <= bound
            for cost, bound, floor in zip((total(arch), costs(arch)["work"]), bounds, floors, strict=False)
        )
    }


@pytest.mark.parametrize("largest_root", [1, 8, 64])
@pytest.mark.parametrize("bounds", [(14,), (20,), (30,), (45,), (60,), (500,), (45, 8), (60, 6), (500, 10), (30, 500)])
def test_size_and_members_are_those_of_counting_all(bounds, largest_root, monkeypatch) -> None:
    monkeypatch.setattr("nasmvt.cost.feasible.LARGEST_ROOT", largest_root)  # 1: every slot is eliminated
    one = space(CHOICES)
    expected, found = within(one, *bounds), feasible(one, *bounds)
    assert found.size == len(expected) > 0
    assert {arch for arch in every_arch(one) if arch in found} == expected
    drawn = found.sample(100 * len(expected), np.random.default_rng(0))
    assert set(drawn) == expected


@pytest.mark.parametrize("largest_root", [1, 64])
@pytest.mark.parametrize(
    ("bounds", "floors"),
    [
        ((45,), (40,)),
        ((45,), (45,)),  # one sum
        ((500,), (60,)),
        ((30,), (0,)),
        ((45, 8), (30, None)),
        ((60, 10), (None, 8)),
        ((60, 12), (50, 10)),
    ],
)
def test_floors_are_kept_as_counting_all_says(bounds, floors, largest_root, monkeypatch) -> None:
    monkeypatch.setattr("nasmvt.cost.feasible.LARGEST_ROOT", largest_root)
    one = space(CHOICES)
    expected, found = within(one, *bounds, floors=floors), feasible(one, *bounds, floors=floors)
    assert found.size == len(expected) > 0
    assert {arch for arch in every_arch(one) if arch in found} == expected
    drawn = Counter(found.sample(200 * len(expected), np.random.default_rng(0)))
    assert set(drawn) == expected
    statistic = sum((count - 200) ** 2 / 200 for count in drawn.values())
    assert abs(statistic - (len(expected) - 1)) <= 4 * (2 * len(expected)) ** 0.5


def test_a_floor_above_everything_leaves_nothing() -> None:
    one = space(CHOICES)
    assert feasible(one, 10_000, floors=[total(one.largest) + 1]).size == 0
    assert feasible(one, 10_000, floors=[total(one.largest)]).size == 1


@pytest.mark.parametrize("bounds", [(30,), (45,), (500,), (45, 8)])
def test_every_feasible_arch_has_the_same_chance(bounds) -> None:
    """Chi-square test of uniformity; the statistic has mean and variance known from the degrees of freedom."""
    one = space(CHOICES)
    expected = within(one, *bounds)
    drawn = Counter(feasible(one, *bounds).sample(200 * len(expected), np.random.default_rng(1)))
    statistic = sum((drawn[arch] - 200) ** 2 / 200 for arch in expected)
    freedom = len(expected) - 1
    assert abs(statistic - freedom) < 3 * (2 * freedom) ** 0.5


def test_tight_bounds_are_met_without_rejection(monkeypatch) -> None:
    one = space(CHOICES)
    smallest = min(map(total, every_arch(one)))
    monkeypatch.setattr("nasmvt.cost.feasible._ROUNDS", 1)  # what was drawn is what is returned
    for bound in (smallest, int(smallest * 1.01) + 1):
        found = feasible(one, bound)
        assert all(total(arch) <= bound for arch in found.sample(500, np.random.default_rng(0)))


def test_nothing_feasible() -> None:
    one = space(CHOICES)
    smallest, largest = (f(map(total, every_arch(one))) for f in (min, max))
    found = feasible(one, smallest - 1)
    assert found.size == 0
    assert (found.least_V[0], found.most_V[0]) == (smallest, largest)
    with pytest.raises(ValueError, match="nothing to draw from"):
        found.sample(1, np.random.default_rng(0))


@pytest.mark.parametrize("limit", [200, 0])
@pytest.mark.parametrize("floor", [None, 40])
def test_many_distinct_sums_are_rounded_and_stay_within_bounds(floor, limit, monkeypatch) -> None:
    one = space(CHOICES)
    expected = within(one, 45, floors=[floor])
    monkeypatch.setattr("nasmvt.cost.feasible.LIMIT", limit)
    found = feasible(one, 45, floors=[floor])
    drawn = found.sample(300 * len(expected), np.random.default_rng(0))
    assert set(drawn) == expected
    assert found.size >= len(expected)
    statistic = sum((count - 300) ** 2 / 300 for count in Counter(drawn).values())
    assert abs(statistic - len(expected)) < 4 * (2 * len(expected)) ** 0.5


def test_the_whole_space_is_uniform_over_archs() -> None:
    one = space(CHOICES)
    everything = FeasibleSet.everything(one)
    assert everything.size == one.size
    assert one.largest in everything
    depths = Counter(arch["depth"] for arch in everything.sample(4000, np.random.default_rng(0)))
    assert depths[3] / 4000 == pytest.approx(6**3 / (6 + 36 + 216), abs=0.03)


def test_repair_lowers_one_option_at_a_time() -> None:
    one, rng = space(CHOICES), np.random.default_rng(0)
    found = feasible(one, 40)
    for _ in range(200):
        arch = one.sample(rng)
        repaired = found.repair(arch, rng)
        assert repaired in found
        assert (repaired == arch) == (arch in found)
        assert (one.encode(repaired) <= one.encode(arch)).all()
    smallest = feasible(one, total(one.smallest))
    assert smallest.repair(one.largest, rng) == one.smallest


def test_repair_raises_what_is_below_a_floor() -> None:
    one, rng = space(CHOICES), np.random.default_rng(0)
    found = feasible(one, 50, floors=[44])
    raised = 0
    for _ in range(200):
        arch = one.sample(rng)
        repaired = found.repair(arch, rng)
        assert repaired in found
        assert (repaired == arch) == (arch in found)
        raised += total(arch) < 44 and bool((one.encode(repaired) >= one.encode(arch)).all())
    assert raised > 20


def test_repair_draws_where_lowering_does_not_help() -> None:
    """Options are names: the first is not the cheapest."""
    one = space({"kind": ["dear", "cheap"], "width": [1, 2]})
    items = ItemTables(one, lambda arch: {"x": (10 if arch["kind"] == "dear" else 1) * arch["width"]})
    found = FeasibleSet(items.add_up([{"x": 1}]), [2])
    repaired = found.repair(one.smallest, np.random.default_rng(0))
    assert repaired["kind"] == "cheap"


def test_random_spaces_and_costs_against_counting_all(monkeypatch) -> None:
    """Any costs, negative ones too, one to three bounds, tight and loose, with and without floors, whatever is cut."""
    rng = np.random.default_rng(0)
    for _ in range(12):
        monkeypatch.setattr("nasmvt.cost.feasible.LARGEST_ROOT", int(rng.choice([1, 4, 64])))
        one = space({**CHOICES, "depth": sorted({int(d) for d in rng.integers(1, 4, size=2)})})
        factors = rng.integers(-3, 9, size=(3, 3, 4))

        def drawn(arch: Arch, factors=factors) -> dict[str, int]:
            blocks = list(enumerate(zip(arch["heads"], arch["ratio"], strict=True)))
            items = {
                f"{column}.{block}.{part}": int(factors[column, block, part] * cost)
                for column in range(3)
                for block, (heads, ratio) in blocks
                for part, cost in enumerate((heads * arch["width"], ratio, heads * ratio, 1))
            }
            return items | {f"{column}.last": arch["heads"][-1] * column for column in range(3)}

        items = ItemTables(one, drawn)
        archs, count = every_arch(one), int(rng.integers(1, 4))
        columns = [[n for n in items.slots if n.startswith(f"{column}.")] for column in range(count)]
        known = np.array([[sum(drawn(arch).get(n, 0) for n in names) for names in columns] for arch in archs])
        tables = items.add_up([dict.fromkeys(names, 1) for names in columns])
        for _ in range(3):
            bounds = [int(np.quantile(column, rng.random())) for column in known.T]
            floors = [int(np.quantile(column, rng.random() / 2)) if rng.random() < 0.4 else None for column in known.T]
            kept_NV = (known <= bounds) & (known >= [-np.inf if floor is None else floor for floor in floors])
            expected = {arch for arch, within in zip(archs, kept_NV.all(axis=1), strict=True) if within}
            found = FeasibleSet(tables, bounds, floors)
            assert found.size == len(expected)
            assert found.least_V.tolist() == known.min(axis=0).tolist()
            if expected:
                assert set(found.sample(500, rng)) <= expected
                assert found.repair(archs[-1], rng) in expected


@pytest.mark.parametrize(("bounds", "floors"), [((60,), ()), ((60, 6), (58, None)), ((10_000,), ())])
def test_near_the_bound(bounds, floors):
    """Those of at least 95 % of the first bound, or of the largest sum where it does not bind."""
    one = space(CHOICES)
    top = min(bounds[0], max(map(total, every_arch(one))))
    least = max(int(0.95 * top), *(floors[:1] or (0,)))
    expected = within(one, *bounds, floors=(least, None))
    near = feasible(one, *bounds, floors=floors).near_bound()
    assert near.size == len(expected) > 0
    assert {arch for arch in every_arch(one) if arch in near} == expected


def test_near_no_bound_is_everything():
    assert FeasibleSet.everything(space(CHOICES)).near_bound().size == len(every_arch(space(CHOICES)))
