"""Units in the order of their importance: leading slices then keep what matters.

By magnitude, as once-for-all sorts channels (Cai et al., ICLR 2020): the sum of the absolute weights that read a unit,
and, between BatchNorms, of what these make of it: weights that read a unit of a hundredth of the others' values are as
large as any, and the unit says nothing.
By first-order Taylor expansion (Molchanov et al., CVPR 2019, arXiv:1906.10771): the square of the sum, over these
weights, of weight times gradient, which estimates how the sum of the tasks' losses changes without the unit.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import Tensor, nn

from nasmvt.data.types import Batch
from nasmvt.errors import UserError
from nasmvt.families import family
from nasmvt.families.axis import Axis
from nasmvt.space.sharing import fits
from nasmvt.supernet.supernet import Supernet

_QUANTILES = 255
"""Values that stand for a normal distribution."""

Score = Callable[["Units"], Tensor]
"""Gives the importance of each unit: (units,)."""


@dataclass(frozen=True)
class Units:
    """The units of one module, in every network and shared copy that has them."""

    count: int
    held: tuple[tuple[Tensor, int], ...]
    """Every tensor with the dimension of the axis, each once."""
    readers: tuple[tuple[Tensor, int], ...]
    """Those that read the units."""
    spread: Tensor | None = None
    """How far the values of each unit spread, (units,); None: as far as those of the others."""
    gain: Tensor | None = None
    """What becomes of the rows of what reads them, (rows,); None: they stay as they are."""

    def reorder(self, order: Tensor) -> None:
        """Put the units in another order, (units,) int64, and with them their gradients."""
        for tensor, dim in self.held:
            rows = torch.arange(tensor.shape[dim], device=tensor.device).view(self.count, -1)[order].flatten()
            for values in (tensor.detach(), tensor.grad):
                if values is not None:
                    values.copy_(values.index_select(dim, rows))

    def in_order(self, score: Score) -> Tensor:
        """Return the order (units,) int64 that puts the most important first; equal ones keep their order."""
        return torch.argsort(score(self), descending=True, stable=True)

    def sums(self, values: Iterable[tuple[Tensor, int]]) -> Tensor:
        """Return the sums over each unit of values that lie as `held` does: (units,)."""
        return torch.stack([v.movedim(dim, 0).reshape(self.count, -1).sum(1) for v, dim in values]).sum(0)


def put_in_order(supernet: Supernet, score: Score) -> int:
    """Put the units of all axes that the family declares in order, the most important first, alike for all tasks.

    The largest network of every task computes the same as before, up to rounding; units of equal importance keep
    their order.

    Args:
        supernet: whose weights are put in order.
        score: gives the importance of units.

    Returns:
        The number of modules whose units were put in order.

    Raises:
        UserError: if the family declares no axes.
    """
    if not family(supernet.space.family).axes_of(supernet.space):
        raise UserError(
            f"the family {supernet.space.family} knows no order of importance of {supernet.space.name}: leave "
            "initial.order out"
        )
    found = units_of_axes(supernet)
    for units, order in [(units, units.in_order(score)) for units in found]:
        units.reorder(order)
    return len(found)


def units_of_axes(supernet: Supernet) -> list[Units]:
    """Return the units of all axes that the family declares."""
    axes = family(supernet.space.family).axes_of(supernet.space)
    return [units for axis in axes for units in _units(supernet, axis)]


def by_magnitude(units: Units) -> Tensor:
    """Return the sums of the absolute weights that read each unit, times what they make of it."""
    weights = ((tensor.detach().abs(), dim) for tensor, dim in units.readers)
    if units.gain is not None:
        weights = (((tensor.transpose(0, -1) * units.gain).transpose(0, -1), dim) for tensor, dim in weights)
    sums = units.sums(weights)
    return sums if units.spread is None else sums * units.spread


def by_taylor(units: Units) -> Tensor:
    """Return the squares of the sums of weight times gradient over the weights that read each unit."""
    return units.sums((t.detach() * t.grad, dim) for t, dim in units.readers if t.grad is not None).square()


SCORES: dict[str, Score] = {"magnitude": by_magnitude, "taylor": by_taylor}
"""By name."""


def gather_gradients(supernet: Supernet, batches: Iterable[tuple[str, Batch]]) -> None:
    """Sum up the gradients of the largest networks' losses; parameters and statistics stay.

    Args:
        supernet: gets the gradients.
        batches: tasks with training batches on the supernet's device.
    """
    kept = {name: buffer.clone() for name, buffer in supernet.named_buffers()}
    for task, batch in batches:
        network = supernet.network_for_step(supernet.space.largest, task)
        torch.stack(list(network.loss(batch.images, batch.targets, batch.infos).values())).sum().backward()
    with torch.no_grad():
        for name, buffer in supernet.named_buffers():
            buffer.copy_(kept[name])


def _units(supernet: Supernet, axis: Axis) -> Iterator[Units]:
    modules: dict[str, list[tuple[str, nn.Module]]] = {}
    for task, network in supernet.networks.items():
        for name, module in network.named_modules():
            if fits(axis.modules, name):
                modules.setdefault(name, []).append((task, module))
    for name, owners in modules.items():
        held: dict[int, tuple[Tensor, int]] = {}
        readers: dict[int, tuple[Tensor, int]] = {}
        counts = set() if axis.count is None else {int(attrgetter(axis.count)(owners[0][1]))}
        for leaf, dim in axis.tensors.items():
            for task, module in owners:
                if not _has(module, leaf):
                    continue
                for tensor in stored_as(supernet, task, f"{name}.{leaf}"):
                    held[id(tensor)] = tensor, dim
                    if axis.count is None and (leaf == axis.reader or leaf in axis.rows):
                        counts.add(tensor.shape[dim] // axis.rows.get(leaf, 1))
                    if leaf == axis.reader:
                        readers[id(tensor)] = tensor, dim
        if readers and len(counts) == 1:
            yield Units(
                counts.pop(),
                tuple(held.values()),
                tuple(readers.values()),
                _mean(_spread(attrgetter(axis.spread)(module)) for _, module in owners) if axis.spread else None,
                _mean(_gain(attrgetter(axis.gain)(module)) for _, module in owners) if axis.gain else None,
            )


def _mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean(0)


def _spread(norm: nn.Module) -> Tensor:
    """Return the standard deviation of what a BatchNorm and its activation make of normal values: (channels,)."""
    weight, bias = norm.get_parameter("weight").detach(), norm.get_parameter("bias").detach()
    quantiles = torch.special.ndtri((torch.arange(_QUANTILES, device=weight.device) + 0.5) / _QUANTILES)
    values: Tensor = getattr(norm, "act", nn.Identity())(quantiles[:, None] * weight + bias)
    return values.std(0)


def _gain(norm: nn.Module) -> Tensor:
    """Return the factors by which a BatchNorm multiplies its input, without their signs: (channels,)."""
    variance = norm.get_buffer("running_var") + float(norm.eps)  # type: ignore[arg-type]
    return norm.get_parameter("weight").detach().abs() / variance.sqrt()


def stored_as(supernet: Supernet, task: str, name: str) -> list[Tensor]:
    """Return a task's own tensor and, where there is one, the shared copy."""
    own = supernet.lenders[task].stored(name, False)
    shared = supernet.lenders[task].stored(name, True)
    return [own] if shared is own else [own, shared]


def _has(module: nn.Module, leaf: str) -> bool:
    try:
        return isinstance(attrgetter(leaf)(module), Tensor)
    except AttributeError:
        return False
