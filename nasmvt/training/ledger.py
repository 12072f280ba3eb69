"""Losses stay on the device until they are read."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nasmvt.errors import UserError
from nasmvt.space import Arch

Losses = dict[str, dict[str, float]]
"""Losses by task and name."""

_NAMED = 8
"""Archs that a sentence names at most."""


class _Entry(NamedTuple):
    step: int
    archs: Sequence[Arch]
    names: list[tuple[str, str]]
    """Task and name of each loss."""
    values: Tensor
    """The losses, then the norm of the gradients, on the device."""


class Ledger:
    """Collects the losses and gradient norms of steps on the device; one transfer reads and checks them all."""

    def __init__(self) -> None:
        self._unread: list[_Entry] = []
        self.last: Losses = {}
        """The losses of the last step that was read."""

    def add(self, step: int, archs: Sequence[Arch], losses: Mapping[str, Mapping[str, Tensor]], norm: Tensor) -> None:
        """Record a step, counted from 1, without waiting for the device."""
        names = [(task, name) for task, parts in losses.items() for name in parts]
        scalars = [losses[task][name].detach() for task, name in names]
        self._unread.append(_Entry(step, archs, names, torch.stack([*scalars, norm.to(scalars[0])])))

    def read(self, mean: Callable[[Tensor], Tensor] = lambda rows: rows) -> Losses:
        """Read what was recorded since the last call; return the losses of the newest step.

        Args:
            mean: averages the numbers of all processes, which must all read then.

        Raises:
            UserError: if a loss or the gradients of a step are not finite, naming the
                first such step, task and arch.
        """
        entries, self._unread = self._unread, []
        if entries:
            rows = mean(torch.cat([entry.values for entry in entries])).tolist()
            for entry in entries:
                row, rows = rows[: len(entry.values)], rows[len(entry.values) :]
                self.last = _losses(entry, row)
                _check(entry, self.last, row[-1])
        return self.last


def named(archs: Sequence[Arch]) -> str:
    """Return the archs of a step for a sentence."""
    more = [f"{len(archs) - _NAMED} more"] if len(archs) > _NAMED else []
    return "; ".join([*map(str, archs[:_NAMED]), *more])


def _losses(entry: _Entry, row: list[float]) -> Losses:
    found: Losses = {}
    for (task, name), value in zip(entry.names, row, strict=False):  # the last value of a row is the norm
        found.setdefault(task, {})[name] = value
    return found


def _check(entry: _Entry, losses: Losses, norm: float) -> None:
    for task, parts in losses.items():
        if not math.isfinite(sum(parts.values())):
            values = ", ".join(f"{name} {value:g}" for name, value in parts.items())
            raise UserError(
                f"the loss of task {task!r} is not finite at step {entry.step} ({values}; arch {named(entry.archs)}): "
                "lower training.lr or check the labels; the last checkpoint is kept"
            )
    if not math.isfinite(norm):
        raise UserError(
            f"the gradients are not finite at step {entry.step} (arch {named(entry.archs)}): lower training.lr; the "
            "last checkpoint is kept"
        )
