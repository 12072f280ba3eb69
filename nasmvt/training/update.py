"""From the losses of a step to the weights after it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nasmvt.errors import UserError
from nasmvt.training.config import TrainingConfig


class Update:
    """Backward passes, summed, then clipping and one optimizer step.

    Nothing here waits for the device, except with fp16: whether a step is skipped has to be known before the next one.
    There losses are scaled, so that small gradients are not lost ("Mixed precision training", arXiv:1710.03740, section
    3.2); a step whose gradients overflow moves nothing, is counted in `skipped`, and halves the scale.
    """

    def __init__(self, optimizer: Optimizer, config: TrainingConfig, device: torch.device) -> None:
        self._optimizer = optimizer
        self._clip = config.clip
        self._mode = config.clip_mode
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.skipped = 0
        """Steps that moved nothing since the training began."""

    def begin(self) -> None:
        """Drop the previous gradients, so that the optimizer skips parameters without new ones."""
        self._optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a scalar."""
        self._scaler.scale(loss).backward()

    def gradients(self) -> list[Tensor]:
        """Return the gradients summed so far, in the order of the parameters; they may be changed in place."""
        return [parameter.grad for parameter in self._parameters() if parameter.grad is not None]

    def touched(self) -> list[bool]:
        """Return for each parameter whether it has a gradient."""
        return [parameter.grad is not None for parameter in self._parameters()]

    def touch(self, wanted: Sequence[bool]) -> None:
        """Give zeros as gradients to parameters that others touched and this process did not."""
        for parameter, needed in zip(self._parameters(), wanted, strict=True):
            if needed and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def step(self) -> Tensor:
        """Clip the gradients and update the weights; return the norm before clipping, a scalar on the device.

        The norm of a step that is skipped is 0.

        Raises:
            UserError: if gradients overflow even unscaled.
        """
        self._scaler.unscale_(self._optimizer)
        moved = [parameter for parameter in self._parameters() if parameter.grad is not None]
        if self._clip is not None and self._mode == "norm":
            norm = nn.utils.clip_grad_norm_(moved, self._clip)
        else:
            norm = nn.utils.get_total_norm(self.gradients())
            if self._clip is not None:
                nn.utils.clip_grad_value_(moved, self._clip)
        scale = self._scaler.get_scale()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._scaler.get_scale() < scale:
            self.skipped += 1
            self._check(scale)
            return torch.zeros_like(norm)
        return torch.as_tensor(norm)

    def state_dict(self) -> dict[str, Any]:
        """Return scale and skipped steps as plain values; nothing unless the precision is fp16."""
        state: dict[str, Any] = self._scaler.state_dict()
        return {**state, "skipped": self.skipped} if state else {}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on with a scale; one that was saved is no use in another precision, and none is needed to begin with."""
        if saved and self._scaler.is_enabled():
            state = dict(saved)
            self.skipped = state.pop("skipped")
            self._scaler.load_state_dict(state)

    def _check(self, scale: float) -> None:
        if scale < 1:
            raise UserError(
                "the gradients overflow fp16 whatever the losses are multiplied by: set training.precision to bf16 or "
                "fp32, or lower training.lr; the last checkpoint is kept"
            )

    def _parameters(self) -> Iterator[nn.Parameter]:
        for group in self._optimizer.param_groups:
            yield from group["params"]
