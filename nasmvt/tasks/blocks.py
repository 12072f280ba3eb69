"""The blocks of a task network: their depth, and activations that are recomputed block by block.

Recomputing ("Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174) keeps of a block its input alone, and
runs it once more in the backward pass.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from math import inf
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from nasmvt.errors import UserError
from nasmvt.families import family
from nasmvt.space import SearchSpace
from nasmvt.space.sharing import fits
from nasmvt.tasks.network import TaskNetwork


def blocks_of(space: SearchSpace, setting: str) -> re.Pattern[str]:
    """Return what the names of the blocks of a space's networks match.

    Raises:
        UserError: if the family names no blocks, which the setting needs.
    """
    blocks = family(space.family).blocks_of(space)
    if blocks is None:
        raise UserError(
            f"{setting} works by block, but the family {space.family} names none of {space.name}: register it with "
            "'blocks' (docs/new-family.md), or leave the setting out"
        )
    return re.compile(blocks)


def recomputed_blocks(space: SearchSpace, wanted: bool) -> re.Pattern[str] | None:
    """Return what the names of the blocks that are recomputed match; None: nothing is.

    Raises:
        UserError: if the family names no blocks, or the space asks for it as those of nasmvt up to 0.4 did.
    """
    setting = "training.activation_checkpointing"
    if wanted:
        return blocks_of(space, setting)
    for size, replaced_by in family(space.family).retired.items():
        if replaced_by == setting and space.fixed.get(size):
            raise UserError(
                f"{space.name} fixes {size!r}, which became a setting of trainings: set {setting} to true, or remove "
                f"{size!r} from the space"
            )
    return None


def depths(networks: Iterable[Sequence[str]], blocks: re.Pattern[str]) -> dict[str, int]:
    """Return the depth of every parameter of some task networks, whose names are given in their order.

    Blocks count from 1. What comes before the first has depth 0, what stands between two that of the next one, and what
    comes after the last, the neck and the head with it, one more than that. Of a name in several networks the first
    counts.
    """
    every = [list(names) for names in networks]
    places = {n: tuple(map(_number, match.groups())) for names in every for n in names if (match := blocks.match(n))}
    order = {place: depth for depth, place in enumerate(sorted(set(places.values())), 1)}
    found: dict[str, int] = {}
    for names in every:
        depth, own = len(order) + 1, {}
        for name in reversed(names):
            depth = own[name] = order[places[name]] if name in places else depth
        first = next((at for at, name in enumerate(names) if name in places), 0)
        found = {**own, **dict.fromkeys(names[:first], 0), **found}
    return found


def _number(group: str | None) -> float:
    return inf if group is None else int(group)


@contextmanager
def recomputing(network: TaskNetwork, blocks: re.Pattern[str]) -> Iterator[None]:
    """Recompute the activations of blocks and of the head's heavy parts in the backward pass, for passes in here.

    Gradients, statistics of norms and what is drawn by chance stay as they are.
    """
    heavy = [f"head.{pattern}" for pattern in getattr(network.head, "heavy", ())]
    chosen = [
        module
        for name, module in network.named_modules()
        if blocks.fullmatch(name) or any(fits(pattern, name) for pattern in heavy)
    ]
    for module in chosen:
        vars(module)["forward"] = partial(_recomputed, module)
    try:
        yield
    finally:
        for module in chosen:
            del vars(module)["forward"]


def _recomputed(module: nn.Module, *arguments: Any, **named: Any) -> Any:
    forward = partial(type(module).forward, module)
    return checkpoint(forward, *arguments, use_reentrant=False, context_fn=partial(_contexts, module), **named)


def _contexts(module: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Return the contexts of the first and of the second run."""
    return nullcontext(), _statistics_kept(module)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Let BatchNorms update copies of their statistics, which the first run has updated already."""
    held: list[tuple[nn.Module, dict[str, Tensor | None]]] = []
    for norm in module.modules():
        if isinstance(norm, _BatchNorm):
            held.append((norm, dict(norm._buffers)))
            for name, buffer in norm._buffers.items():
                norm._buffers[name] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for norm, buffers in held:
            norm._buffers.update(buffers)
