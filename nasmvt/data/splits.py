"""Dividing the training images: those to train weights on, and those to compare candidates on."""

import numpy as np

from nasmvt.errors import UserError
from nasmvt.seeding import derive_seed


def split_train(n: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide `n` images by seed.

    Args:
        n: number of images of the training split.
        fraction: fraction that goes to the search split, rounded to whole images.
        seed: seed of the choice.

    Returns:
        The indices for training and those for search, int64, disjoint, each ascending.

    Raises:
        UserError: if one of the two would be empty.
    """
    count = round(n * fraction)
    if count < 1:
        raise UserError(
            f"no search split is left: search_fraction {fraction} of {n} training images is less than one "
            f"image: raise search_fraction or use more images"
        )
    if count >= n:
        raise UserError(
            f"no training images are left: search_fraction {fraction} of {n} training images takes all "
            f"of them: lower search_fraction or use more images"
        )
    order = np.random.default_rng(derive_seed("search split", seed)).permutation(n)
    return np.sort(order[count:]), np.sort(order[:count])
