"""Randomness as a function of named integers: the same (seed, step) always gives the same numbers."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on all of `parts` and nothing else; numpy's integers count as Python's."""
    plain = tuple(part if isinstance(part, str) else int(part) for part in parts)
    digest = hashlib.sha256(repr(plain).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Seed torch, numpy and `random` from `parts` inside the block; restore them afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        reseed(*parts)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def reseed(*parts: int | str) -> None:
    """Seed torch, numpy and `random` from `parts` anew, inside a block of `seeded`: restoring takes ten times longer.

    timm's augmentations draw from `random` and numpy, torchvision's from torch, so all three are set.
    """
    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    _seed_torch(seed)


def _seed_torch(seed: int) -> None:
    """Seed torch where it draws; `torch.manual_seed` formats a stack trace for a CUDA that is not in use, each time."""
    if torch.cuda.is_initialized() or torch.backends.mps.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
