"""Which archs a step trains."""

from collections.abc import Callable, Mapping

import numpy as np

from nasmvt.space import Arch
from nasmvt.tasks.trainable import Trainable
from nasmvt.training.config import TrainingConfig

Sampling = Callable[[Trainable, np.random.Generator], list[Arch]]
"""Returns the archs of a step; what is random comes from the generator."""


def uniform(trainable: Trainable, rng: np.random.Generator) -> list[Arch]:
    """Draw one arch."""
    return [trainable.draw(rng)]


def sandwich(random: int) -> Sampling:
    """Take the largest, the smallest and some random archs (BigNAS, arXiv:2003.11142, section 3.1).

    Args:
        random: how many are random.
    """

    def sample(trainable: Trainable, rng: np.random.Generator) -> list[Arch]:
        drawn = [trainable.draw(rng) for _ in range(random)]
        return [trainable.space.largest, trainable.space.smallest, *drawn]

    return sample


_SAMPLINGS: Mapping[str, Callable[[TrainingConfig], Sampling]] = {
    "uniform": lambda config: uniform,
    "sandwich": lambda config: sandwich(config.random_archs),
}


def make_sampling(config: TrainingConfig) -> Sampling:
    """Return the sampling that the settings ask for."""
    return _SAMPLINGS[config.sampling](config)
