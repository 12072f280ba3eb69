"""Which archs a step trains."""

from collections.abc import Callable, Mapping

import numpy as np

from nasmvt.space import Arch
from nasmvt.tasks.trainable import Trainable
from nasmvt.training.config import TrainingConfig

Sampling = Callable[[Trainable, np.random.Generator, int], list[Arch]]
"""Returns the archs of a step, counted from 0; what is random comes from the generator."""


def uniform(trainable: Trainable, rng: np.random.Generator, step: int) -> list[Arch]:
    """Draw one arch."""
    return [trainable.draw(rng)]


def sandwich(random: int) -> Sampling:
    """Take the largest, the smallest and some random archs (BigNAS, arXiv:2003.11142, section 3.1).

    Args:
        random: how many are random.
    """

    def sample(trainable: Trainable, rng: np.random.Generator, step: int) -> list[Arch]:
        drawn = [trainable.draw(rng) for _ in range(random)]
        return [trainable.space.largest, trainable.space.smallest, *drawn]

    return sample


def largest_first(steps: int, then: Sampling) -> Sampling:
    """Take the largest arch alone at first, as once-for-all does before it shrinks (arXiv:1908.09791, section 3.3).

    Args:
        steps: how many steps.
        then: what follows.
    """

    def sample(trainable: Trainable, rng: np.random.Generator, step: int) -> list[Arch]:
        return [trainable.space.largest] if step < steps else then(trainable, rng, step)

    return sample


_SAMPLINGS: Mapping[str, Callable[[TrainingConfig], Sampling]] = {
    "uniform": lambda config: uniform,
    "sandwich": lambda config: sandwich(config.random_archs),
}


def make_sampling(config: TrainingConfig) -> Sampling:
    """Return the sampling that the settings ask for."""
    return largest_first(config.largest_first, _SAMPLINGS[config.sampling](config))
