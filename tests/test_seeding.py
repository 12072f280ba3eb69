"""Randomness is a function of named integers and disturbs nobody."""

import random

import numpy as np
import torch

from nasmvt.seeding import derive_seed, seeded


def draw() -> tuple:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_the_same_parts_give_the_same_numbers():
    drawn = []
    for parts in ((1, "a", 2), (1, "a", 2), (1, "a", 3), (1, "b", 2), ("1", "a", 2)):
        with seeded(*parts):
            drawn.append(draw())
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 4
    assert 0 <= derive_seed(5) < 2**63


def test_the_state_outside_is_given_back():
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = draw()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    with seeded(9):
        draw()
    assert draw() == expected


def test_integers_of_numpy_give_the_same_seed():
    """Their repr is another since numpy 2, so an index from an array would draw another image than the same index."""
    assert derive_seed("a", np.int64(3), 4) == derive_seed("a", 3, 4)


def test_torch_draws_what_its_own_seeding_gives():
    with seeded("it", 3):
        drawn = torch.rand(3)
    torch.manual_seed(derive_seed("it", 3))
    assert torch.equal(drawn, torch.rand(3))
