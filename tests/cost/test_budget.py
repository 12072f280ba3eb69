"""Budgets are read, compared with the space, and kept."""

import pytest

from nasmvt.cost import Budget, ParameterCounter, parse_count
from nasmvt.errors import UserError


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


def test_below_the_smallest_names_its_total(supernet, space):
    counter = ParameterCounter(space, supernet.tasks, supernet.sharing())
    smallest = counter.total(space.smallest)
    with pytest.raises(UserError, match=f"{smallest:,} in total"):
        Budget(smallest - 1).check(counter)
    assert Budget(smallest).check(counter) is None
    assert Budget(smallest).allows(counter, space.smallest)


def test_above_the_largest_is_said_not_to_bind(supernet, space):
    counter = ParameterCounter(space, supernet.tasks, supernet.sharing())
    largest = counter.total(space.largest)
    assert "does not bind" in Budget(largest).check(counter)
    assert Budget(largest - 1).check(counter) is None
    assert not Budget(largest - 1).allows(counter, space.largest)
    assert Budget(None).check(counter) is None
    assert Budget(None).allows(counter, space.largest)


def test_sharing_lowers_the_count_and_parts_add_up(supernet, space):
    every, none = supernet.sharing_bounds()
    counts = [ParameterCounter(space, supernet.tasks, sharing).count(space.largest) for sharing in (every, none)]
    assert counts[0].total < counts[1].total
    assert counts[1].shared == 0
    for count in counts:
        assert count.total == count.shared + sum(count.specific.values()) + sum(count.heads.values())
    adaptive = sum(
        supernet.shared[key].numel() for key in supernet.shared
    )  # of the largest: one copy when shared, three when not
    assert counts[0].shared == adaptive
    assert counts[1].total - counts[0].total == 2 * adaptive
