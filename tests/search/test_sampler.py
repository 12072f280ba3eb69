"""Fresh archs within the budget; what the feasible set itself does is tested in tests/cost."""

import numpy as np

from nasmvt.search.sampler import TRIES, FreshSampler
from tests.search.toys import LARGE, SMALL, every_arch, make_space, size, within


def test_random_goes_through_a_small_space_without_repetition() -> None:
    space = make_space(SMALL)
    sampler, rng = FreshSampler(within(6, space)), np.random.default_rng(0)
    seen: list = []
    while (arch := sampler.random(seen, rng)) is not None:
        seen.append(arch)
    assert len(seen) == len(set(seen))
    assert set(seen) == {arch for arch in every_arch(space) if size(arch) <= 6}


def test_fresh_repairs_and_gives_up_in_the_end() -> None:
    space = make_space(LARGE)
    sampler, rng, calls = FreshSampler(within(size(space.smallest), space)), np.random.default_rng(0), []

    def draw():
        calls.append(space.largest)
        return space.largest

    assert sampler.fresh(draw, set(), rng) == space.smallest
    calls.clear()
    assert sampler.fresh(draw, {space.smallest}, rng) is None
    assert len(calls) == TRIES
