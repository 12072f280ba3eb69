"""Budgets are read, compared with the space, and kept."""

from fractions import Fraction
from typing import get_args

import numpy as np
import pytest

from nasmvt.cost import (
    Budget,
    Costs,
    count_macs,
    count_parameters,
    parse_budget,
    parse_count,
    parse_gmacs,
    parse_sharing,
)
from nasmvt.errors import UserError
from nasmvt.space.sharing import SharingRule


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("135M", 135_000_000),
        ("1.2B", 1_200_000_000),
        ("86_300_000", 86_300_000),
        ("500k", 500_000),
        ("2.5m", 2_500_000),
    ],
)
def test_counts(text, count):
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "0", "-3M", "12Q", "abc", "1.5.2M", "M", "1e6x"])
def test_what_is_no_count_is_refused(text):
    with pytest.raises(UserError, match="a budget is a number of parameters such as 135M"):
        parse_count(text)


@pytest.mark.parametrize(
    ("text", "at_least", "bounds"),
    [
        (None, None, (None, None)),
        ("25M", None, (None, 25_000_000)),
        ("20M..25M", None, (20_000_000, 25_000_000)),
        ("20M..", None, (20_000_000, None)),
        ("..25M", None, (None, 25_000_000)),
        ("25M", "20M", (20_000_000, 25_000_000)),
        (None, "30%", (Fraction(3, 10), None)),
        ("62.5%", None, (None, Fraction(5, 8))),
        ("50% .. 1M", None, (Fraction(1, 2), 1_000_000)),
    ],
)
def test_ranges_and_shares(text, at_least, bounds):
    assert parse_budget(text, at_least) == bounds


def test_what_is_no_range_is_refused():
    for text in ("..", "a..b", "1M...2M", "1M..2M..3M"):
        with pytest.raises(UserError, match="a budget is a number of parameters such as 135M"):
            parse_budget(text)
    for text in ("0%", "101%"):
        with pytest.raises(UserError, match="lies above 0% and at most at 100%"):
            parse_budget(text)
    with pytest.raises(UserError, match="the lower bound is given twice, by --budget 1M"):
        parse_budget("1M..2M", "3M")


def test_gmacs():
    assert parse_gmacs(["det=400", "cls = 0.5"]) == {"det": 400_000_000_000, "cls": 500_000_000}
    assert parse_gmacs(["det=60%"]) == {"det": Fraction(3, 5)}
    for text in ("det", "det=", "det=many", "=", "det=1/0"):
        with pytest.raises(UserError, match="--max-gmacs takes task=number such as det=400"):
            parse_gmacs([text])


def test_sharing_rules():
    assert parse_sharing("all") == "all"
    with pytest.raises(UserError, match=r"learned, all, none, not 'al'; did you mean 'all'\?"):
        parse_sharing("al")


@pytest.fixture
def costs(supernet, tiny_costs) -> Costs:
    return tiny_costs.under(supernet.sharing())


def total(costs: Costs, arch) -> int:
    return int(costs.totals.of(arch)[0])


def test_below_the_smallest_names_its_total(costs, space):
    smallest = total(costs, space.smallest)
    with pytest.raises(UserError, match=f"{smallest:,} in total: raise --budget"):
        Budget(smallest - 1).feasible(costs)
    assert space.smallest in Budget(smallest).feasible(costs)


def sentences(budget: Budget, costs: Costs) -> list[str]:
    return budget.describe(budget.feasible(costs))


def test_shares_are_of_the_largest_network(costs, space):
    most, work = total(costs, space.largest), int(costs.macs("cls").of(space.largest)[0])
    found = Budget(Fraction(2, 3), {"cls": Fraction(1, 2)}, at_least=Fraction(1, 3)).resolve(costs)
    assert (found.parameters, found.at_least) == (most * 2 // 3, -(-most // 3))
    assert found.macs == {"cls": work // 2}
    assert found.resolve(costs) == found


def test_a_lower_bound(costs, space):
    least, most = total(costs, space.smallest), total(costs, space.largest)
    found = Budget(most, at_least=most - 1).feasible(costs)
    assert space.smallest not in found
    assert all(total(costs, arch) >= most - 1 for arch in found.sample(10, np.random.default_rng(0)))
    assert (
        sentences(Budget(at_least=least), costs)[1]
        == f"the bound of at least {least:,} parameters in all does not bind"
    )
    with pytest.raises(UserError, match=f"more than the largest network of {space.name} has, {most:,} in total"):
        Budget(at_least=most + 1).feasible(costs)
    with pytest.raises(UserError, match="no network has at least 20 and at most 10 parameters in all: swap them"):
        Budget(10, at_least=20).feasible(costs)


def test_what_does_not_bind_is_said(costs, space):
    least, most = total(costs, space.smallest), total(costs, space.largest)
    assert sentences(Budget(most), costs) == [
        f"networks of {space.name} have {least:,} to {most:,} parameters in all",
        f"the bound of {most:,} parameters in all does not bind",
        f"{space.size:,} of {space.size:,} archs are within the budget",
    ]
    assert not any("does not bind" in sentence for sentence in sentences(Budget(most - 1), costs))
    assert space.largest not in Budget(most - 1).feasible(costs)
    assert sentences(Budget(), costs) == []
    assert space.largest in Budget().feasible(costs)


def test_work_is_described_in_gmacs(costs, space):
    least, most = (costs.macs("cls").of(arch)[0] / 1e9 for arch in (space.smallest, space.largest))
    first, second, _ = sentences(Budget(None, {"cls": 10**12}), costs)
    assert first == f"networks of {space.name} have {least:.3f} to {most:.3f} GMACs for cls"
    assert second == "the bound of 1,000 GMACs for cls does not bind"


def test_operations_are_bounded_by_task(costs, space):
    least, most = (int(costs.macs("cls").of(arch)[0]) for arch in (space.smallest, space.largest))
    middle = (least + most) // 2
    found = Budget(None, {"cls": middle}).feasible(costs)
    assert 0 < found.size < space.size
    for arch in found.sample(20, np.random.default_rng(0)):
        assert sum(count_macs(space, costs.tasks["cls"], arch).values()) <= middle
    both = Budget(total(costs, space.smallest), {"cls": middle}).feasible(costs)
    assert both.sample(3, np.random.default_rng(0)) == [space.smallest] * 3
    with pytest.raises(UserError, match=r"a limit of .* GMACs for cls is below the least"):
        Budget(None, {"cls": least - 1}).feasible(costs)
    with pytest.raises(UserError, match=r"the task 'clss', unknown; did you mean 'cls'\?"):
        Budget(None, {"clss": middle}).feasible(costs)


def test_tables_count_what_a_built_network_holds(supernet, space, tasks, tiny_costs):
    rng = np.random.default_rng(0)
    for sharing in map(supernet.sharing, get_args(SharingRule)):
        costs = tiny_costs.under(sharing)
        for _ in range(5):
            arch = space.sample(rng)
            assert costs.parameters(arch) == count_parameters(space, tasks, arch, sharing)
            assert total(costs, arch) == costs.parameters(arch).total


def test_sharing_lowers_the_count_and_parts_add_up(supernet, space, tiny_costs):
    every, none = supernet.sharing("all"), supernet.sharing("none")
    counts = [tiny_costs.under(sharing).parameters(space.largest) for sharing in (every, none)]
    assert counts[0].total < counts[1].total
    assert counts[1].shared == 0
    for count in counts:
        assert count.total == count.shared + sum(count.specific.values()) + sum(count.heads.values())
    adaptive = sum(
        supernet.shared[key].numel() for key in supernet.shared
    )  # of the largest: one copy when shared, three when not
    assert counts[0].shared == adaptive
    assert counts[1].total - counts[0].total == 2 * adaptive
