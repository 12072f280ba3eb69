"""From the losses of a step to the weights after it."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nasmvt.training.config import TrainingConfig


class Update:
    """Backward passes, summed, then clipping and one optimizer step; nothing here waits for the device."""

    def __init__(self, optimizer: Optimizer, config: TrainingConfig) -> None:
        self._optimizer = optimizer
        self._clip = config.clip
        self._mode = config.clip_mode

    def begin(self) -> None:
        """Forget the gradients of the step before: what gets none in this one is not moved by the optimizer."""
        self._optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a scalar."""
        loss.backward()

    def step(self) -> Tensor:
        """Clip the gradients and move the weights; return the norm of all gradients before, a scalar on the device."""
        moved = [parameter for parameter in self._parameters() if parameter.grad is not None]
        if self._clip is not None and self._mode == "norm":
            norm = nn.utils.clip_grad_norm_(moved, self._clip)
        else:
            norm = nn.utils.get_total_norm([parameter.grad for parameter in moved if parameter.grad is not None])
            if self._clip is not None:
                nn.utils.clip_grad_value_(moved, self._clip)
        self._optimizer.step()
        return torch.as_tensor(norm)

    def _parameters(self) -> Iterator[nn.Parameter]:
        for group in self._optimizer.param_groups:
            yield from group["params"]
