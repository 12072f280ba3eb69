import numpy as np
import pytest

from nasmvt.errors import UserError
from nasmvt.search.sampler import FeasibleSampler, every_arch
from tests.search.toys import LARGE, SMALL, make_space, size, within


def test_every_arch_of_a_space_once() -> None:
    space = make_space(SMALL)
    archs = list(every_arch(space))
    assert len(archs) == len(set(archs)) == space.size == 12


def test_repair_lowers_just_enough() -> None:
    space, budget = make_space({**LARGE, "depth": [6]}), 200
    sampler = FeasibleSampler(space, within(budget))
    rng = np.random.default_rng(0)
    for _ in range(200):
        arch = space.sample(rng)
        repaired = sampler.repair(arch, rng)
        assert size(repaired) <= budget
        if size(arch) <= budget:
            assert repaired == arch
        else:  # one option before it was too large, and an option makes a third at most here
            assert size(repaired) > budget * 2 / 3
            before, after = space.encode(arch), space.encode(repaired)
            assert np.all(after <= before)


def test_repair_of_the_largest_reaches_the_smallest() -> None:
    space = make_space(LARGE)
    sampler = FeasibleSampler(space, within(size(space.smallest)))
    assert sampler.repair(space.largest, np.random.default_rng(0)) == space.smallest


def test_repair_asks_rarely() -> None:
    """The predicate builds networks: the number of its calls is what a search under a tight budget costs."""
    space, calls = make_space(LARGE), []
    sampler = FeasibleSampler(space, lambda arch: calls.append(arch) or size(arch) <= 64)
    calls.clear()
    sampler.repair(space.largest, np.random.default_rng(0))
    assert len(calls) <= 7


def test_nothing_feasible_is_refused() -> None:
    with pytest.raises(UserError, match="not even the smallest of toy"):
        FeasibleSampler(make_space(), within(1))
