"""Weights averaged over the steps of a training, which often do better than the last ones."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Averaged:
    """The exponential moving average of weights and statistics.

    The decay of step n is at most (1 + n) / (10 + n), so that the first weights are soon forgotten (as in TensorFlow).

    Args:
        state: the state dict of what is trained; its tensors are those that the training changes.
        decay: weight of the average so far at every step.
    """

    def __init__(self, state: Mapping[str, Tensor], decay: float) -> None:
        self._state = dict(state)
        self._decay = decay
        self.values = {name: tensor.clone() for name, tensor in self._state.items()}
        """The averages by name."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, tensor in self._state.items():
            if tensor.is_floating_point():
                self.values[name].lerp_(tensor, 1 - decay)
            else:
                self.values[name].copy_(tensor)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Go on with the averages of a checkpoint, or, where it has none, from the present weights."""
        for name, tensor in (values or self._state).items():
            self.values[name].copy_(tensor)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages in the place of the weights inside the block."""
        before = {name: tensor.clone() for name, tensor in self._state.items()}
        try:
            self._set(self.values)
            yield
        finally:
            self._set(before)

    @torch.no_grad()
    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, tensor in self._state.items():
            tensor.copy_(values[name])
